"""One server for each data folder: a lock that the kernel drops when its holder dies, whatever the way.

The composition root takes it before it opens the records.
"""

from __future__ import annotations

import fcntl
import os
import shlex

from atoll.domain.data_folder import DataFolder
from atoll.domain.errors import Conflict, Unavailable

_PID_BYTES_MAX = 32


class DataFolderLock:
    """Held from `acquire` to `release` or to the end of the process. Not inherited by programs it starts; a child
    that is forked without exec shares it and must close `fileno()`.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._file: int | None = None

    def acquire(self) -> None:
        """Make the folder (mode 0700) if there is none, and lock it. Conflict when another server has it."""
        try:
            os.makedirs(self._folder.root, mode=0o700, exist_ok=True)
            opened = os.open(self._folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"cannot use {self._folder.root} as the data folder: {error.strerror}") from error
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(opened, _PID_BYTES_MAX, 0).decode(errors="replace").strip()
            os.close(opened)
            down = f"atoll down --data {shlex.quote(str(self._folder.root))}"
            raise Conflict(
                f"{self._folder.root} is in use by another atoll server (pid {pid or 'unknown'}): "
                f"stop it with `{down}`, or choose another folder with --data"
            ) from None
        # The file stays when the lock goes: removing it would let two servers lock two files of one name.
        os.ftruncate(opened, 0)
        os.pwrite(opened, f"{os.getpid()}\n".encode(), 0)
        self._file = opened

    def release(self) -> None:
        """Let another server have it; a second call does nothing."""
        opened, self._file = self._file, None
        if opened is not None:
            os.ftruncate(opened, 0)
            os.close(opened)

    def fileno(self) -> int:
        """The descriptor that holds it."""
        if self._file is None:
            raise Conflict("the data folder is not locked")
        return self._file
