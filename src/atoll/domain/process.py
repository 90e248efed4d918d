"""Process: a command in a sandbox: the main one, an exec, a background job; a terminal is one with a PTY."""

from __future__ import annotations

from dataclasses import dataclass, field

from atoll.domain.secret import SecretUse

MAIN = "main"  # the id of a sandbox's main process; others are p1, p2, ...


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A command to start. `stdin` false means /dev/null; `env` is added to the sandbox's environment, and so is what
    `secrets` are, by the service that starts it."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    tty: bool = False
    cols: int = 80
    rows: int = 24
    stdin: bool = False
    timeout_s: float | None = None
    secrets: tuple[SecretUse, ...] = ()
    label: str = (
        ""  # what whoever starts it finds it again by: `ProcessInfo` tells it, in every later life of the server
    )
    serves: bool = False  # it waits for others: alone it does not keep its sandbox from being idle


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its exit code (128 + n when signal n ended it) and why."""

    code: int
    signal: int | None = None
    timed_out: bool = False
    oom_killed: bool = False
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process that the sidekick knows: `output_end` is the offset after its last output byte."""

    id: str
    argv: tuple[str, ...]
    pid: int
    tty: bool
    started_at: float  # Unix seconds
    output_start: int  # the first byte still in the ring
    output_end: int
    exit: Exit | None = None
    label: str = ""  # as its ProcessSpec said


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A directory entry as the sandbox sees it; symlinks are not followed. `mode` has permission bits only."""

    name: str
    kind: str  # file, directory, symlink, other
    size: int
    mode: int
    modified_at: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished process and what it wrote; `truncated` when a stream passed its limit and the rest was dropped."""

    process_id: str
    exit: Exit
    stdout: bytes
    stderr: bytes
    truncated: bool = False
