"""Spawn: start one program as the tenant, on pipes or on a PTY, without ever copying the sidekick's memory.

posix_spawn (vfork underneath) costs a fifth of a millisecond however large this process is. What it cannot
set (no_new_privs, the seccomp filter, an empty bounding set) the sidekick has already and its children inherit.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import termios

from atoll.sidekick.identity import Identity
from atoll.sidekick.paths import open_directory, open_path
from atoll.sidekick.protocol import SIZE, Refused

# whatever we ignore, or were started with, is no program's: a server behind `nohup` or `&` has some ignored
_RESET_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_TIOCGPTN = 0x80045430  # the termios module lacks these two
_TIOCSPTLCK = 0x40045431
_NO_PROGRAM = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class Missing(Exception):
    """There is no such program, or it may not be executed; `code` is what a shell would exit with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Spawned:
    """A started program and our ends of its streams; `stdin` is -1 when it reads /dev/null."""

    __slots__ = ("outputs", "pid", "stdin")

    def __init__(self, pid: int, stdin: int, outputs: tuple[int, ...]) -> None:
        self.pid = pid
        self.stdin = stdin
        self.outputs = outputs  # (stdout, stderr), or (the PTY's master,)


def spawn_on_pipes(who: Identity, argv: list[str], env: dict[str, str], cwd: str, *, stdin: bool) -> Spawned:
    """Raises Missing, or Refused for a bad cwd or when the sandbox is out of processes."""
    program = _find_program(argv[0], env, cwd)
    ours: list[int] = []
    theirs: list[int] = []
    try:
        if stdin:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            theirs.append(read_end)
            ours.append(write_end)
        else:
            theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            ours.append(-1)
        for _ in ("stdout", "stderr"):
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            theirs.append(write_end)
            ours.append(read_end)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(theirs)]
        pid = _spawn(who, program, argv, env, cwd, actions)
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)
    for fd in ours:
        if fd >= 0:
            os.set_blocking(fd, False)
    return Spawned(pid, ours[0], (ours[1], ours[2]))


def spawn_on_pty(who: Identity, argv: list[str], env: dict[str, str], cwd: str, *, cols: int, rows: int) -> Spawned:
    """As `spawn_on_pipes`, with a controlling terminal; its master is both stdin and output."""
    program = _find_program(argv[0], env, cwd)
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        (number,) = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
        resize(master, cols, rows)
        actions = [
            # a session leader that opens a terminal gets it as its controlling one
            (os.POSIX_SPAWN_OPEN, 0, f"/dev/pts/{number}", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]
        pid = _spawn(who, program, argv, env, cwd, actions)
    except BaseException:
        os.close(master)
        raise
    os.set_blocking(master, False)
    return Spawned(pid, master, (master,))


def resize(master: int, cols: int, rows: int) -> None:
    """Tell a PTY its size; the kernel sends SIGWINCH."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def parse_size(payload: bytes) -> tuple[int, int]:
    """(columns, rows) of a RESIZE frame."""
    if len(payload) != SIZE.size:
        raise Refused("bad_request", "resize: expected u16 columns and u16 rows", "resize")
    cols, rows = SIZE.unpack(payload)
    return cols, rows


def _spawn(
    who: Identity,
    program: str,
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    actions: Sequence[tuple[int, int, int] | tuple[int, int, str, int, int]],
) -> int:
    directory = open_directory(cwd, "cwd")
    try:
        try:
            os.fchdir(directory)
        except OSError as error:
            raise Refused("bad_request", f"cwd {cwd!r}: {error.strerror}", "cwd") from None
        who.before_spawn()
        try:
            return os.posix_spawn(
                program,
                argv,
                env,
                file_actions=actions,
                setsid=True,
                resetids=True,
                setsigmask=(),
                setsigdef=_RESET_SIGNALS,
            )
        finally:
            who.after_spawn()
            os.chdir("/")
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            raise Refused("unavailable", "the sandbox is at its limit of processes or memory") from None
        if error.errno in _NO_PROGRAM:  # found, but its interpreter was not
            raise Missing(127, f"{argv[0]}: {error.strerror}") from None
        raise Missing(126, f"{argv[0]}: {error.strerror}") from None
    finally:
        os.close(directory)


def _find_program(name: str, env: dict[str, str], cwd: str) -> str:
    if not name:
        raise Missing(127, "'': command not found")
    if "/" in name:
        _check(os.path.join(cwd, name), name)
        return name
    found: Missing | None = None
    for folder in env.get("PATH", "").split(":"):
        path = os.path.join(folder or cwd, name)
        try:
            _check(path, name)
            return path
        except Missing as missing:
            if missing.code == 126:
                found = missing
    raise found or Missing(127, f"{name}: command not found")


def _check(path: str, name: str) -> None:
    try:
        found = open_path(path, os.O_PATH)  # not through a magic link: the sidekick's own descriptors lead outside
        try:
            mode = os.fstat(found).st_mode
        finally:
            os.close(found)
    except OSError as error:
        if error.errno in _NO_PROGRAM:
            raise Missing(127, f"{name}: {os.strerror(error.errno)}") from None
        raise Missing(126, f"{name}: {error.strerror}") from None
    if mode & 0o170000 != 0o100000:
        raise Missing(126, f"{name}: is not a regular file")
    if not mode & 0o111:
        raise Missing(126, f"{name}: Permission denied")


def _close(fds: list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
