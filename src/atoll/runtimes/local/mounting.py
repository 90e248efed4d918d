"""Mounting: which working trees a sandbox has, and how it gets them; the node's side of tree_mounts.py.

A box remembers its mounts as `{workspace, path, read_only, tree_id, number}`, where the number is the mount's.
"""

from __future__ import annotations

import os

from atoll.runtimes.local import tree_mounts
from atoll.runtimes.local.errands import send_on_errand
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.runtimes.local.box import Box
    from atoll.runtimes.local.slots import Slots
    from atoll.runtimes.local.trees import Trees
    from atoll.sidekick.loop import Loop

    Then = Callable[[Refused | None], None]

FIELDS = ("workspace", "path", "read_only", "tree_id")


class Mounting:
    """Gives trees to boxes. What fails is told to `then`; a box that ends meanwhile is nobody's any more."""

    def __init__(self, loop: Loop, trees: Trees, slots: Slots | None) -> None:
        self._loop = loop
        self._trees = trees
        self._slots = slots
        self._waiting: dict[str, list[Callable[[], None]]] = {}  # changes of boxes that are in the middle of one

    def give(self, box: Box, wanted: list[dict[str, Any]], then: Then) -> None:
        """Mount them in a sandbox that is being made. Refused when one of the trees does not exist.

        Without root its own child has bound them, or is about to (see rootfs.py): here they are counted only.
        """
        mounts = [{name: one[name] for name in FIELDS} for one in wanted]
        for one in mounts:
            if not self._trees.exists(one["tree_id"]):
                raise Refused("not_found", f"tree {one['tree_id']} does not exist")
        if not mounts or self._slots is None:
            for one in mounts:
                self._trees.adopt(one["tree_id"], box.key)
            box.mounts = mounts
            then(None)
            return
        waits = len(mounts) + 1
        over = False

        def step(refused: Refused | None = None) -> None:
            nonlocal waits, over
            waits -= 1
            if over or box.gone:
                return
            if refused is not None:
                over = True
                then(refused)
            elif waits == 0:
                self._attach(box, mounts, then)

        for one in mounts:
            self._trees.hold(one["tree_id"], box.key, step)
        assert box.birth is not None
        box.birth.when_prepared(step)

    def _attach(self, box: Box, mounts: list[dict[str, Any]], then: Then) -> None:
        wanted = [{**one, "mount_point": self._trees.mount_point(one["tree_id"])} for one in mounts]

        def attached(numbers: Any, refused: Refused | None) -> None:
            if box.gone:
                return
            if refused is None:
                box.mounts = [{**one, "number": number} for one, number in zip(mounts, numbers, strict=True)]
            then(refused)

        self.inside(box, lambda pidfd, userns: tree_mounts.attach(pidfd, box.slot, userns, wanted), attached)

    def swap(self, box: Box, path: str, tree_id: str, read_only: bool, then: Then) -> None:
        """Another tree in place of the one at `path`; swaps in one sandbox wait for each other. Refused: not_found."""
        if self._slots is None:
            raise Refused("not_supported", "changing a mounted workspace needs root")
        if all(one["path"] != path for one in box.mounts):
            raise Refused("not_found", f"sandbox {box.id} has no workspace at {path}")
        if not self._trees.exists(tree_id):
            raise Refused("not_found", f"tree {tree_id} does not exist")
        self.in_turn(box, lambda: self._swap(box, path, tree_id, read_only, then))

    def in_turn(self, box: Box, change: Callable[[], None]) -> None:
        """Begin a change of what is mounted in a box once no other is under way; it ends with `next_turn`."""
        waiting = self._waiting.get(box.key)
        if waiting is not None:
            waiting.append(change)
        else:
            self._waiting[box.key] = []
            change()

    def next_turn(self, box: Box) -> None:
        """A change has ended, well or not."""
        if self._waiting[box.key]:
            self._waiting[box.key].pop(0)()
        else:
            del self._waiting[box.key]

    def _swap(self, box: Box, path: str, tree_id: str, read_only: bool, then: Then) -> None:
        one = next(one for one in box.mounts if one["path"] == path)

        def done(refused: Refused | None) -> None:
            self.next_turn(box)
            then(refused)

        def held(refused: Refused | None) -> None:
            if box.gone:
                refused = Refused("not_found", f"sandbox {box.id} does not exist")
            if refused is not None:
                swapped(None, refused)
            else:
                self._exchange(box, one, tree_id, read_only, swapped)

        def swapped(result: Any, refused: Refused | None) -> None:
            del one["next"]
            if refused is None:
                numbers, hidden = result
                for other in box.mounts:
                    other["number"] = numbers.get(str(other["number"]), other["number"])
                if hidden:
                    one["also"] = [*one.get("also", ()), one["tree_id"]]
                one.update(tree_id=tree_id, read_only=read_only)
            if not box.gone:
                try:
                    box.save()
                except OSError:
                    pass  # `next` stands there still: another node would look what has happened
                self._trees.let_go(box.key, but=trees_of(box))
            done(refused)

        if (one["tree_id"], one["read_only"]) == (tree_id, read_only):
            done(None)
            return
        try:
            one["next"] = tree_id  # a node that dies over it is followed by one that looks what has happened
            box.save()
            self._trees.hold(tree_id, box.key, held)
        except (OSError, Refused) as error:
            one.pop("next", None)
            done(error if isinstance(error, Refused) else Refused("unavailable", str(error)))

    def _exchange(
        self, box: Box, one: dict[str, Any], tree_id: str, read_only: bool, then: Callable[[Any, Refused | None], None]
    ) -> None:
        point = self._trees.mount_point(tree_id)
        with_home = home_in([{**one, "read_only": read_only}]) if one is box.mounts[0] else None

        def work(pidfd: int, userns: int) -> Any:
            home = None if with_home is None else with_home.removeprefix(one["path"])
            return tree_mounts.swap(
                pidfd, box.pid, box.slot, userns, one["number"], point, read_only=read_only, home=home
            )

        self.inside(box, work, then)

    def settle(self, box: Box) -> None:
        """A box of an earlier node that may have died while it changed one of its mounts: see what there is."""
        for one in box.mounts:
            tree_id = one.pop("next", None)
            if tree_id is None:
                continue
            device = self._trees.device(tree_id)
            there = tree_mounts.mounts_of(box.pid)
            number = next((number for number, (_, _, found) in there.items() if found == device), None)
            if number is not None and one["number"] not in there:
                one.update(tree_id=tree_id, number=number)
            elif number is not None:  # it lies below the old one, or on it: in use
                one["also"] = [*one.get("also", ()), tree_id]

    def told(self, box: Box) -> list[dict[str, Any]]:
        """Its mounts as a server sees them."""
        return [{name: one[name] for name in FIELDS} for one in box.mounts]

    def inside(self, box: Box, work: Callable[[int, int], Any], then: Callable[[Any, Refused | None], None]) -> None:
        """An errand with the sidekick's pidfd and its slot's user namespace. Whatever fails is told to `then`: others
        may wait for their turn."""
        assert self._slots is not None
        try:
            pidfd = os.dup(box.pidfd) if box.pidfd >= 0 else os.pidfd_open(box.pid)
        except OSError as error:
            then(None, Refused("unavailable", f"the sandbox has ended: {error.strerror}"))
            return
        try:
            userns = self._slots.userns(box.slot)
            send_on_errand(self._loop, lambda: work(pidfd, userns), then, keep=(pidfd, userns))
        except OSError as error:
            then(None, Refused("unavailable", f"this host has no room for another process: {error.strerror or error}"))
        finally:
            os.close(pidfd)


def trees_of(box: Box) -> frozenset[str]:
    """The trees that it has mounted, those that another one was mounted over included."""
    trees = {tree_id for one in box.mounts for tree_id in (one["tree_id"], *one.get("also", ()))}
    return frozenset(trees | {one["next"] for one in box.mounts if "next" in one})


def home_in(mounts: list[dict[str, Any]]) -> str | None:
    """The home of a sandbox with these workspaces: in the first one, so that it is part of its revisions."""
    return f"{mounts[0]['path']}/.home" if mounts and not mounts[0]["read_only"] else None
