"""Trees: the working trees of workspaces: ext4 images with a journal, mounted by the node while somebody uses them.

On disk a tree's owners are the plain ids that sandboxes see; each sandbox has it mounted with its own range of ids.
Whatever may block is an errand's; at most one errand at a time works on a tree.
"""

from __future__ import annotations

import errno
import os
import re

from atoll.runtimes.local import syscalls as sys
from atoll.runtimes.local.disks import BLOCK_BYTES, Disks, attach_loop, find_loop
from atoll.runtimes.local.errands import send_on_errand
from atoll.runtimes.local.host_template import GID, UID
from atoll.runtimes.local.repair import has_errors, repair
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from atoll.sidekick.loop import Loop, Timer

    Then = Callable[[Refused | None], None]

LINGER_S = 3.0  # a tree that nobody uses any more stays mounted so long: the next user is often near
HOST_FREE_MIN_BYTES = 256 * 2**20
JOURNAL_BYTES = 8 * 2**20
QUOTA_MIN_BYTES = 2**20
QUOTA_MAX_BYTES = 2**44
INODES_MAX = 2**31
_OPTIONS = (
    "-O", "^resize_inode", "-I", "256", "-J", f"size={JOURNAL_BYTES // 2**20}",
    "-E", f"lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner={UID}:{GID}",
)  # fmt: skip
_FLAGS = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOATIME
# inode tables are holes, which read as zeros: written they would cost 256 bytes for each file that may ever be.
# What is deleted is given back to the host. A write that fails ends writing, not the machine.
_DATA = "noinit_itable,discard,errors=remount-ro"
_GROUP_BLOCKS = 32_768
_INODE_BYTES = 256
_RESERVED_BLOCKS = 4096  # what ext4 keeps for itself
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_DAMAGED = (errno.EUCLEAN, errno.EINVAL, errno.EIO, errno.EBADMSG)


class Tree:
    """What the node knows of a tree that somebody uses, has used of late, or works on."""

    def __init__(self) -> None:
        self.users: set[str] = set()  # keys of boxes
        self.mounted = False
        self.busy = False
        self.waiting: list[Callable[[], None]] = []  # for the errand at work
        self.timer: Timer | None = None


class Trees:
    """The trees of one data folder. Refused from any call that names one: not_found, conflict or unavailable."""

    def __init__(self, loop: Loop, data: str) -> None:
        self._loop = loop
        self._folder, self._mounts = f"{data}/trees", f"{data}/run/trees"
        for folder in (self._folder, self._mounts):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        self._disks = Disks(f"{self._folder}/.masters", _OPTIONS)
        self._trees: dict[str, Tree] = {}

    def clean(self) -> None:
        """Remove what an earlier node left half-made. Its mounts went with its mount namespace."""
        for name in os.listdir(self._folder):
            if name.endswith(".partial"):
                os.unlink(f"{self._folder}/{name}")
        for name in os.listdir(self._mounts):
            if not self.exists(name):
                os.rmdir(f"{self._mounts}/{name}")

    def exists(self, tree_id: str) -> bool:
        return _NAME.fullmatch(tree_id) is not None and os.path.exists(f"{self._folder}/{tree_id}")

    def names(self) -> list[str]:
        return [name for name in os.listdir(self._folder) if _NAME.fullmatch(name)]

    def mount_point(self, tree_id: str) -> str:
        return f"{self._mounts}/{tree_id}"

    def make(self, tree_id: str, quota_bytes: int, inodes: int, then: Then) -> None:
        if not _NAME.fullmatch(tree_id):
            raise Refused("bad_request", f"tree_id {tree_id!r}: expected letters, digits, '_' and '-'")
        if not QUOTA_MIN_BYTES <= quota_bytes <= QUOTA_MAX_BYTES or not 16 <= inodes <= INODES_MAX:
            raise Refused("bad_request", f"quota: {quota_bytes} bytes and {inodes} inodes are not possible")
        tree = self._trees.setdefault(tree_id, Tree())
        if tree.busy or self.exists(tree_id):
            raise Refused("conflict", f"tree {tree_id} exists already")
        image, partial = f"{self._folder}/{tree_id}", f"{self._folder}/.{tree_id}.partial"

        def work() -> None:
            free = os.statvfs(self._folder)
            if free.f_bavail * free.f_frsize < HOST_FREE_MIN_BYTES:
                raise Refused("unavailable", "the disk of this host is full: no room for another workspace")
            try:
                self._disks.make(partial, image_bytes(quota_bytes, inodes), inodes + 16)
                sync(partial)
                os.rename(partial, image)
            except BaseException:
                if os.path.exists(partial):
                    os.unlink(partial)
                raise
            sync(self._folder)

        self._work(tree_id, tree, work, then)

    def hold(self, tree_id: str, user: str, then: Then) -> None:
        """Count `user` among its users and have it mounted. When that fails it still counts, until `let_go`."""
        if not self.exists(tree_id):
            raise Refused("not_found", f"tree {tree_id} does not exist")
        tree = self._trees.setdefault(tree_id, Tree())
        tree.users.add(user)

        def mount() -> None:
            if tree.mounted:
                then(None)
                return

            def mounted(refused: Refused | None) -> None:
                tree.mounted = refused is None
                then(refused)

            target = self.mount_point(tree_id)
            self._work(tree_id, tree, lambda: mount_image(f"{self._folder}/{tree_id}", target), mounted)

        self._when_free(tree, mount)

    def adopt(self, tree_id: str, user: str) -> None:
        """A box of an earlier node has it mounted."""
        self._trees.setdefault(tree_id, Tree()).users.add(user)

    def let_go(self, user: str, *, but: frozenset[str] = frozenset()) -> None:
        """It uses no tree any more, `but` these."""
        for tree_id, tree in list(self._trees.items()):
            if tree_id in but or user not in tree.users:
                continue
            tree.users.discard(user)
            if not tree.users:
                if tree.timer is not None:
                    tree.timer.cancel()
                tree.timer = self._loop.after(LINGER_S, lambda tree_id=tree_id: self._unmount(tree_id))

    def device(self, tree_id: str) -> str | None:
        """major:minor of the loop device that it has now."""
        found = find_loop(f"{self._folder}/{tree_id}") if self.exists(tree_id) else None
        if found is None:
            return None
        number = os.fstat(found[1]).st_rdev
        os.close(found[1])
        return f"{os.major(number)}:{os.minor(number)}"

    def users(self, tree_id: str) -> set[str]:
        tree = self._trees.get(tree_id)
        return set() if tree is None else set(tree.users)

    def remove(self, tree_id: str, then: Then) -> None:
        """Unmount and delete it, if it exists; conflict when somebody uses it."""
        if not _NAME.fullmatch(tree_id):
            then(None)
            return
        tree = self._trees.setdefault(tree_id, Tree())

        def remove() -> None:
            if tree.users:
                then(Refused("conflict", f"tree {tree_id} is in use"))
                return

            def work() -> None:
                unmount_image(self.mount_point(tree_id))
                if self.exists(tree_id):
                    os.unlink(f"{self._folder}/{tree_id}")

            tree.mounted = False
            self._work(tree_id, tree, work, then)

        self._when_free(tree, remove)

    def unmount_all(self, then: Callable[[], None]) -> None:
        """Whoever used one is gone."""
        left = set(self._trees)
        if not left:
            then()

        def unmounted(tree_id: str) -> None:
            left.discard(tree_id)
            if not left:
                then()

        for tree_id in list(left):
            self._unmount(tree_id, lambda tree_id=tree_id: unmounted(tree_id))

    def _unmount(self, tree_id: str, then: Callable[[], None] = lambda: None) -> None:
        tree = self._trees.get(tree_id)
        if tree is None:
            then()
            return

        def unmount() -> None:
            if tree.users or not tree.mounted:
                self._forget(tree_id, tree)
                then()
                return
            tree.mounted = False
            self._work(tree_id, tree, lambda: unmount_image(self.mount_point(tree_id)), lambda _refused: then())

        self._when_free(tree, unmount)

    def _when_free(self, tree: Tree, call: Callable[[], None]) -> None:
        if tree.busy:
            tree.waiting.append(call)
        else:
            call()

    def _work(self, tree_id: str, tree: Tree, work: Callable[[], None], then: Then) -> None:
        tree.busy = True

        def done(_result: object, refused: Refused | None) -> None:
            tree.busy = False
            try:
                then(refused)
            finally:
                while tree.waiting and not tree.busy:
                    tree.waiting.pop(0)()
                self._forget(tree_id, tree)

        try:
            send_on_errand(self._loop, work, done)
        except BaseException:
            tree.busy = False
            raise

    def _forget(self, tree_id: str, tree: Tree) -> None:
        if not (tree.users or tree.mounted or tree.busy or tree.waiting) and self._trees.get(tree_id) is tree:
            del self._trees[tree_id]


def image_bytes(quota_bytes: int, inodes: int) -> int:
    """The size of an image in which `quota_bytes` are left for contents: inode tables, journal, bitmaps come on top."""
    blocks = -(-quota_bytes // BLOCK_BYTES) + _RESERVED_BLOCKS + JOURNAL_BYTES // BLOCK_BYTES
    per_block = BLOCK_BYTES // _INODE_BYTES
    blocks += -(-(inodes + 16) // per_block)
    groups = -(-blocks // _GROUP_BLOCKS) + 1
    # two bitmaps, a rounded-up inode table, and copies of the group descriptors (64 bytes each) in some groups
    blocks += groups * 4 + 16 * (-(-groups * 64 // BLOCK_BYTES) + 1) + 64
    return blocks * BLOCK_BYTES


def mount_image(image: str, target: str) -> None:
    """Mount it on the folder `target`, which is made; by the loop device that it has, when an earlier mount lives on
    in a sandbox. OSError, also when it is damaged beyond what e2fsck mends by itself.
    """
    os.makedirs(target, mode=0o700, exist_ok=True)
    try:
        found = find_loop(image)
        if found is None and has_errors(image):
            repair(image)
        device, loop = found or attach_loop(image)
        try:
            sys.mount(device, target, "ext4", _FLAGS, _DATA)
        except OSError as error:
            os.close(loop)
            if found is not None or error.errno not in _DAMAGED:
                raise
            repair(image)
            device, loop = attach_loop(image)
            sys.mount(device, target, "ext4", _FLAGS, _DATA)
        os.close(loop)
    except BaseException:
        os.rmdir(target)
        raise
    try:
        spare = f"{target}/lost+found"  # mkfs makes it; e2fsck does when it needs one
        if os.lstat(spare).st_uid == 0:
            os.rmdir(spare)
    except OSError:
        pass


def unmount_image(target: str) -> None:
    """What is mounted there, if anything is, and the folder."""
    try:
        sys.unmount(target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:
        os.rmdir(target)
    except FileNotFoundError:
        pass


def sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
