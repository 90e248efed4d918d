"""Trees: the working trees of workspaces: who uses which, so that one is mounted while somebody does, and no longer.

Where a tree lies is its store's to know: tree_images.py, or tree_folders.py without root. Whatever may block is an
errand's; at most one errand at a time works on a tree.
"""

from __future__ import annotations

import os
import re

from atoll.runtimes.local.errands import send_on_errand
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.runtimes.local.tree_folders import TreeFolders
    from atoll.runtimes.local.tree_images import TreeImages
    from atoll.sidekick.loop import Loop, Timer

    TreeStore = TreeImages | TreeFolders

    Then = Callable[[Refused | None], None]

LINGER_S = 3.0  # a tree that nobody uses any more stays mounted so long: the next user is often near
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


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

    def __init__(self, loop: Loop, folder: str, store: TreeStore) -> None:
        self._loop = loop
        self._folder = folder
        self._store = store
        self._trees: dict[str, Tree] = {}

    def clean(self) -> None:
        """Remove what an earlier node left half-made."""
        self._store.clean()

    def exists(self, tree_id: str) -> bool:
        return _NAME.fullmatch(tree_id) is not None and os.path.exists(f"{self._folder}/{tree_id}")

    def names(self) -> list[str]:
        return [name for name in os.listdir(self._folder) if _NAME.fullmatch(name)]

    def mount_point(self, tree_id: str) -> str:
        return self._store.mount_point(tree_id)

    def device(self, tree_id: str) -> str | None:
        return self._store.device(tree_id) if self.exists(tree_id) else None

    def make(self, tree_id: str, quota_bytes: int, inodes: int, then: Then) -> None:
        if not _NAME.fullmatch(tree_id):
            raise Refused("bad_request", f"tree_id {tree_id!r}: expected letters, digits, '_' and '-'")
        tree = self._trees.setdefault(tree_id, Tree())
        if tree.busy or self.exists(tree_id):
            raise Refused("conflict", f"tree {tree_id} exists already")
        self._work(tree_id, tree, lambda: self._store.make(tree_id, quota_bytes, inodes), then)

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

            self._work(tree_id, tree, lambda: self._store.mount(tree_id), mounted)

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

    def users(self, tree_id: str) -> set[str]:
        tree = self._trees.get(tree_id)
        return set() if tree is None else set(tree.users)

    def in_use(self, tree_id: str, then: Callable[[bool, Refused | None], None]) -> None:
        """Whether somebody uses it: one whom we know, or programs that a swap has left in it. To tell, our own mount
        goes: while theirs is there the kernel keeps the tree."""
        if not self.exists(tree_id):
            then(False, None)
            return
        tree = self._trees.setdefault(tree_id, Tree())

        def look() -> None:
            if tree.users:
                then(True, None)
                return

            was_ours = tree.mounted

            def work() -> bool:
                self._store.unmount(tree_id)
                return self._store.held(tree_id, wait=was_ours)

            tree.mounted = False
            self._ask(tree_id, tree, work, lambda held, refused: then(held is not False, refused))

        self._when_free(tree, look)

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
                self._store.unmount(tree_id)
                self._store.remove(tree_id)

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
            self._work(tree_id, tree, lambda: self._store.unmount(tree_id), lambda _refused: then())

        self._when_free(tree, unmount)

    def _when_free(self, tree: Tree, call: Callable[[], None]) -> None:
        if tree.busy:
            tree.waiting.append(call)
        else:
            call()

    def _work(self, tree_id: str, tree: Tree, work: Callable[[], None], then: Then) -> None:
        self._ask(tree_id, tree, work, lambda _result, refused: then(refused))

    def _ask(
        self, tree_id: str, tree: Tree, work: Callable[[], Any], then: Callable[[Any, Refused | None], None]
    ) -> None:
        tree.busy = True

        def done(result: Any, refused: Refused | None) -> None:
            tree.busy = False
            try:
                then(result, refused)
            finally:
                while tree.waiting and not tree.busy:
                    tree.waiting.pop(0)()
                self._forget(tree_id, tree)

        try:
            send_on_errand(self._loop, work, done)
        except OSError as error:
            done(None, Refused("unavailable", f"this host has no room for another process: {error.strerror}"))

    def _forget(self, tree_id: str, tree: Tree) -> None:
        if not (tree.users or tree.mounted or tree.busy or tree.waiting) and self._trees.get(tree_id) is tree:
            del self._trees[tree_id]
