"""Identity: whom the sidekick works as. It stays its own user and touches files and starts programs as the tenant's.

Where the tier gives one user id only (rootless), both are the same and nothing is switched.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


class Identity:
    """The tenant's user and group inside the sandbox; `separate` when they are not the sidekick's own."""

    def __init__(self, uid: int, gid: int, *, separate: bool) -> None:
        self.uid = uid
        self.gid = gid
        self.separate = separate

    def touch_files_as_tenant(self) -> None:
        """From now on every path is resolved, and every file made, with the tenant's rights."""
        if self.separate:
            _libc.setfsgid(self.gid)
            _libc.setfsuid(self.uid)

    def before_spawn(self) -> None:
        """posix_spawn's resetids makes the child's effective ids the real ones: make those the tenant's."""
        if self.separate:
            os.setresgid(self.gid, 0, 0)
            os.setresuid(self.uid, 0, 0)

    def after_spawn(self) -> None:
        if self.separate:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            self.touch_files_as_tenant()
