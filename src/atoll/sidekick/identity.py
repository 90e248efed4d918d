"""Identity: whom the sidekick works as. It stays its own user and touches files and starts programs as the tenant's.

Where the tier gives one user id only (rootless), both are the same and nothing is switched.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

# the most there is: whatever their sizes, the kernel ends every program of the tenant before it ends the sidekick
_OOM_SCORE_TENANT = b"1000"
_OOM_SCORE_OWN = b"0"


class Identity:
    """The tenant's user and group inside the sandbox; `separate` when they are not the sidekick's own.

    `oom_score` is a descriptor of this process's oom_score_adj, which a sandbox cannot open any more; -1 for none.
    """

    def __init__(self, uid: int, gid: int, *, separate: bool, oom_score: int = -1) -> None:
        self.uid = uid
        self.gid = gid
        self.separate = separate
        self._oom_score = oom_score

    def touch_files_as_tenant(self) -> None:
        """From now on every path is resolved, and every file made, with the tenant's rights."""
        if self.separate:
            _libc.setfsgid(self.gid)
            _libc.setfsuid(self.uid)

    def before_spawn(self) -> None:
        """posix_spawn's resetids makes the child's effective ids the real ones: make those the tenant's."""
        if self._oom_score >= 0:
            os.pwrite(self._oom_score, _OOM_SCORE_TENANT, 0)  # a child inherits it
        if self.separate:
            os.setresgid(self.gid, 0, 0)
            os.setresuid(self.uid, 0, 0)

    def after_spawn(self) -> None:
        if self._oom_score >= 0:
            os.pwrite(self._oom_score, _OOM_SCORE_OWN, 0)
        if self.separate:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            self.touch_files_as_tenant()
