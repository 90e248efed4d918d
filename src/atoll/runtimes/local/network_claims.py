"""The machine-wide file in which servers note which addresses are theirs and what IP forwarding was before them.

`network` reads and changes it under its lock, so that several servers on one machine neither collide nor restore
a setting that another one still needs. It lies under /run: like the kernel state it describes, it ends with a reboot.
"""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

FOLDER = "/run/atoll"
_SIZE_LIMIT_BYTES = 64 * 1024
_LOCK_TIMEOUT_S = 5.0
_LOCK_POLL_S = 0.01
_LAST_LINE = "end"


def default_path() -> str:
    """Each network namespace has a file of its own, as it has tables and settings of its own."""
    return f"{FOLDER}/network-{os.stat('/proc/self/ns/net').st_ino}"


class Claims:
    """The file, locked from `with` to the end of its block; `save` writes it, or removes it when it says nothing."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.forwarding_before: str | None = None  # ip_forward before the first server changed it; None: unchanged
        self.servers: dict[str, tuple[str, str]] = {}  # name -> interface prefix, block of addresses
        self._file = -1

    def __enter__(self) -> Claims:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while not self._locked():
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"another server holds {self.path}")
            time.sleep(_LOCK_POLL_S)
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._file = -1

    def save(self) -> None:
        if not self.servers and self.forwarding_before is None:
            os.unlink(self.path)
            return
        lines = [f"server {name} {prefix} {block}" for name, (prefix, block) in self.servers.items()]
        if self.forwarding_before is not None:
            lines.insert(0, f"forwarding {self.forwarding_before}")
        data = "\n".join([*lines, _LAST_LINE, ""]).encode()
        # One write of new text over old; what an interrupted shortening leaves lies behind the last line.
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))

    def _locked(self) -> bool:
        """Open and lock the file; False when somebody else has it, or removed it meanwhile."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.lockf(file, os.F_TLOCK, 0)
        except (BlockingIOError, PermissionError):
            os.close(file)
            return False
        if os.fstat(file).st_nlink == 0:
            os.close(file)
            return False
        self._file = file
        return True

    def _read(self) -> None:
        self.forwarding_before = None
        self.servers = {}
        for line in os.pread(self._file, _SIZE_LIMIT_BYTES, 0).decode(errors="replace").splitlines():
            match line.split():
                case ["forwarding", value]:
                    self.forwarding_before = value
                case ["server", name, prefix, block]:
                    self.servers[name] = prefix, block
                case [word] if word == _LAST_LINE:
                    return
                case _:
                    pass
