"""Agents: which programs do tasks, which versions of them are installed, and what the sandbox of a task gets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from atoll.domain.sandbox import NetworkMode, Resources
from atoll.settings.section import DAY_S, GIB, KIB, MIB, Section

# A path of the operator's: of their home folder, or of where the server was started.
_Path = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
_Version = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")]
_Hash = Annotated[str, Field(pattern=r"^([0-9a-f]{64}|sha512-[A-Za-z0-9+/]{86}==)?$")]


class CodexSettings(Section):
    """The agent `codex`."""

    version: _Version | None = None
    """Version of openai-codex-cli-bin to install. Empty: the one that this Atoll was tried with."""
    hash: _Hash = ""
    """SHA-256 that the package of that version must have. Empty: known for the version that was tried alone."""
    folder: _Path | None = None
    """Folder of a Codex that is on this machine already, to be copied instead: `codex` or `bin/codex` is in it."""
    model: str = Field(default="gpt-5.5", max_length=200)
    """Model of tasks that name none: any that the endpoint has. Empty: the program's own choice, which may speak to
    OpenAI in ways that other endpoints do not know."""


class ClaudeCodeSettings(Section):
    """The agent `claude_code`."""

    version: _Version | None = None
    """Version of @anthropic-ai/claude-code to install. Empty: the one that this Atoll was tried with."""
    hash: _Hash = ""
    """Integrity (`sha512-...`) that the package of that version must have. Empty: known for the version that was
    tried alone."""
    folder: _Path | None = None
    """Folder of a Claude Code that is on this machine already, to be copied instead: `claude` or `bin/claude` is in
    it."""
    model: str = Field(default="", max_length=200)
    """Model of tasks that name none. Empty: the program's own choice."""


class AgentSettings(Section):
    default: Literal["codex", "claude_code", "command"] = "codex"
    """The agent of tasks that name none."""
    store: _Path | None = None
    """Where programs of agents are installed; servers of one machine may share it. Empty: `agents` in the data
    folder."""
    codex: CodexSettings = CodexSettings()
    claude_code: ClaudeCodeSettings = ClaudeCodeSettings()
    install_s: float = Field(default=900.0, ge=1, le=DAY_S)
    """Longest installation of one."""
    install_bytes: int = Field(default=2 * GIB, ge=1 * MIB, le=64 * GIB)
    """Most that one may hold, unpacked."""
    network: Literal["none", "outgoing"] = "outgoing"
    """Network of a task's sandbox, where this host can give it; the model is reached without."""
    cpu_millis: int = Field(default=2_000, ge=10, le=1_000_000)
    """CPU of a task's sandbox, in thousandths."""
    memory_bytes: int = Field(default=2 * GIB, ge=64 * MIB, le=4096 * GIB)
    """Memory of a task's sandbox."""
    pids: int = Field(default=1_024, ge=32, le=4_194_304)
    """Processes and threads of a task's sandbox."""
    disk_bytes: int = Field(default=Resources().disk_bytes, ge=1 * MIB, le=65_536 * GIB)
    """Writable layer of a task's sandbox; its workspace does not count."""
    inodes: int = Field(default=Resources().inodes, ge=256, le=1_000_000_000)
    """Files and directories in that layer."""
    timeout_s: float = Field(default=600.0, ge=1, le=30 * DAY_S)
    """A task that does not say ends after this long."""
    timeout_s_max: float = Field(default=DAY_S, ge=1, le=30 * DAY_S)
    """Longest that a task may ask for."""
    stop_s: float = Field(default=10.0, ge=0, le=600)
    """What an agent that is told to end (TERM) gets for it before it is killed."""
    tasks_max: int = Field(default=32, ge=1, le=10_000)
    """Tasks that run at once in this server; others wait for their turn."""
    tasks_per_owner: int = Field(default=8, ge=1, le=10_000)
    """Tasks of one owner that run at once."""
    tasks_waiting_max: int = Field(default=1_000, ge=1, le=100_000)
    """Tasks that wait in this server; beyond it a request is refused with 429."""
    tasks_unended_per_owner: int = Field(default=200, ge=1, le=100_000)
    """Tasks of one owner that wait or run; beyond it a request is refused with 429."""
    tasks_kept_days: float = Field(default=90.0, gt=0, le=3_650)
    """Days that a task that has ended is kept, with its output and its events. What it cost is kept for ever."""
    events_max: int = Field(default=10_000, ge=100, le=1_000_000)
    """Events that are kept of one task; one that tells more has a warning for the rest, and its end."""
    events_bytes: int = Field(default=16 * MIB, ge=64 * KIB, le=1 * GIB)
    """Bytes that those may hold in all."""
    output_chars: int = Field(default=1 * MIB, ge=1 * KIB, le=64 * MIB)
    """Characters that are kept of a task's output: the last ones."""

    @model_validator(mode="after")
    def _within_maxima(self) -> Self:
        if self.timeout_s > self.timeout_s_max:
            raise ValueError(f"timeout_s ({self.timeout_s}) is above timeout_s_max ({self.timeout_s_max})")
        return self

    def resources(self) -> Resources:
        """Of a task's sandbox; the time limit is the task's own."""
        return Resources(
            cpu_millis=self.cpu_millis,
            memory_bytes=self.memory_bytes,
            pids=self.pids,
            disk_bytes=self.disk_bytes,
            inodes=self.inodes,
        )

    def network_mode(self) -> NetworkMode:
        return NetworkMode(self.network)
