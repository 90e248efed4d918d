"""Slots: numbers for sandboxes, each with 65,536 host user ids of its own and the user namespace that maps them.

A namespace is made once per slot and used again by the slot's next sandbox. Servers on one machine take different
blocks of slots, so that no two sandboxes ever share an id.
"""

from __future__ import annotations

import fcntl
import os
import time

from atoll.runtimes.local import syscalls as sys

FIRST_UID = 0x7000_0000  # above what containers of other tools are given
IDS = 65_536
BLOCK = 1024
BLOCKS = 31
ROTATION = 64
CLAIMS = "/run/atoll/slots"
CLAIMED_S = 5.0  # within which what a killed node had just forked lets go of its blocks
LOOK_AGAIN_S = 0.01


class Slots:
    """Free slots of the blocks that this node holds; a block's claim is a lock that lives as long as a holder."""

    def __init__(self, owner: str) -> None:
        """`owner` is a folder that is empty once no sandbox of these is left."""
        self._owner = owner
        self._locks: list[int] = []
        self._free: list[int] = []
        self._userns: dict[int, int] = {}

    def take(self) -> int:
        if not self._free:
            self._claim_any()
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Some others are taken before it again: by then the kernel has removed the link that it may have had."""
        self._free.insert(max(0, len(self._free) - ROTATION), slot)

    def reserve(self, slots: set[int]) -> None:
        """These are in use by sandboxes that were adopted: hold their blocks."""
        until = time.monotonic() + CLAIMED_S
        for block in {slot // BLOCK for slot in slots}:
            while not self._claim(block):
                if time.monotonic() >= until:
                    raise OSError(f"the range {block} of user ids, which sandboxes of this server have, is another's")
                time.sleep(LOOK_AGAIN_S)
        self._free = [slot for slot in self._free if slot not in slots]

    def userns(self, slot: int) -> int:
        """A descriptor of the slot's user namespace: inside 0..65535 is `uid_base(slot)` and up outside."""
        if slot not in self._userns:
            self._userns[slot] = make_userns(uid_base(slot))
        return self._userns[slot]

    def prepare(self, count: int) -> bool:
        """Make one more namespace ahead, up to `count` slots that would be taken next; False when there are enough."""
        for slot in self._free[-count:]:
            if slot not in self._userns:
                self.userns(slot)
                return True
        return False

    def release(self) -> None:
        """Give every block back; no sandbox may be left."""
        while self._locks:
            fd = self._locks.pop()
            os.ftruncate(fd, 0)
            os.close(fd)
        self._free.clear()

    def _claim_any(self) -> None:
        if not any(self._claim(block) for block in range(BLOCKS)):
            raise OSError("every range of user ids is taken: too many sandboxes or servers on this machine")

    def _claim(self, block: int) -> bool:
        os.makedirs(CLAIMS, mode=0o755, exist_ok=True)
        fd = os.open(f"{CLAIMS}/{block}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owner = os.pread(fd, 4096, 0).decode()
            if owner not in ("", self._owner) and os.path.isdir(owner) and os.listdir(owner):
                raise BlockingIOError  # its node is gone, its sandboxes may live on
        except BlockingIOError:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.pwrite(fd, self._owner.encode(), 0)
        self._locks.append(fd)
        self._free = [*range((block + 1) * BLOCK - 1, block * BLOCK - 1, -1), *self._free]
        return True


def uid_base(slot: int) -> int:
    return FIRST_UID + slot * IDS


def make_userns(first_uid: int) -> int:
    """A descriptor of a new user namespace that maps the range from `first_uid` on.

    The kernel counts some things (inotify instances, queued signals, message queues) for whoever made a namespace too:
    were that root, one tenant could use up what root and all the others have.
    """
    up_read, up_write = os.pipe()
    down_read, down_write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        for end in (up_read, up_write, down_read, down_write):
            os.close(end)
        raise
    if pid == 0:
        try:
            os.close(down_write)
            os.setresuid(-1, first_uid, -1)
            sys.regain_capabilities()
            sys.unshare(sys.CLONE_NEWUSER)
            os.write(up_write, b"1")
            os.read(down_read, 1)
        finally:
            os._exit(0)
    try:
        os.close(up_write)
        if not os.read(up_read, 1):
            raise OSError("unshare: user namespaces are not available")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(f"0 {first_uid} {IDS}")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(up_read)
        os.close(down_read)
        os.close(down_write)
        os.waitpid(pid, 0)
