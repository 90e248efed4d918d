"""Keepers: at most one process for each tree that reads and writes it on our behalf, isolated as a sandbox is.

A keeper ends itself when it is idle; a new node adopts those that are alive.
"""

from __future__ import annotations

import os

from atoll.runtimes.local.box import Box
from atoll.runtimes.local.burial import remove_folder
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from atoll.runtimes.local.trees import Trees

    Then = Callable[[Refused | None], None]


class Keepers:
    """`make(folder, tree_id)` clones one; `kill(box)` ends it; the node says when a box is gone (`forget`)."""

    def __init__(self, folder: str, trees: Trees, make: Callable[[str, str], Box], kill: Callable[[Box], None]) -> None:
        self._folder = folder
        self._trees = trees
        self._make = make
        self._kill = kill
        self._boxes: dict[str, Box] = {}
        self._waiting: dict[str, list[Then]] = {}
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def all(self) -> list[Box]:
        return list(self._boxes.values())

    def adopt(self) -> list[Box]:
        """Those of an earlier node, as it left them: the node looks whether they are alive."""
        for name in os.listdir(self._folder):
            box = Box.load(f"{self._folder}/{name}")
            if box is None:
                remove_folder(f"{self._folder}/{name}")
            else:
                self._boxes[name] = box
        return self.all()

    def key(self, tree_id: str) -> str | None:
        """Of the box that keeps this tree now."""
        box = self._boxes.get(tree_id)
        return None if box is None else box.key

    def get(self, tree_id: str, then: Then) -> None:
        """`then(None)` once the tree's keeper serves. Refused (not_found) when there is no such tree."""
        box = self._boxes.get(tree_id)
        if box is not None and box.ready and box.alive:
            then(None)
            return
        waiting = self._waiting.setdefault(tree_id, [])
        waiting.append(then)
        if box is not None:  # it is being made, or on its way out: then `forget` starts the next
            return
        if len(waiting) == 1:
            self._start(tree_id)

    def end(self, tree_id: str, then: Callable[[], None]) -> None:
        """Kill it, if there is one; `then` once nothing of it is left."""
        box = self._boxes.get(tree_id)
        if box is None:
            then()
            return
        box.when_gone.append(lambda _usage: then())
        self._kill(box)

    def forget(self, box: Box) -> None:
        """Nothing of it is left."""
        if self._boxes.get(box.tree) is not box:  # it could not be made: who waits is told of that
            return
        del self._boxes[box.tree]
        if self._waiting.get(box.tree):
            self._start(box.tree)

    def _start(self, tree_id: str) -> None:
        holder = f"keeper-{tree_id}"  # until its box holds the tree itself

        def mounted(refused: Refused | None) -> None:
            if refused is None:
                try:
                    self._serve(tree_id)
                except OSError as error:
                    refused = Refused("unavailable", f"the keeper could not be made: {error}")
                except Refused as problem:
                    refused = problem
            self._trees.let_go(holder)
            if refused is not None:
                self._tell(tree_id, refused)

        try:
            self._trees.hold(tree_id, holder, mounted)
        except Refused as refused:
            self._tell(tree_id, refused)

    def _serve(self, tree_id: str) -> None:
        folder = f"{self._folder}/{tree_id}"
        box = self._make(folder, tree_id)
        self._boxes[tree_id] = box
        self._trees.adopt(tree_id, box.key)

        def ready(error: Refused | str | None) -> None:
            if error is None:
                box.ready = True
                box.save()
            self._tell(tree_id, None if error is None else Refused("unavailable", f"the keeper: {error}"))
            if error is not None and not box.gone:
                self._kill(box)

        assert box.birth is not None
        box.birth.expect(ready)

    def _tell(self, tree_id: str, refused: Refused | None) -> None:
        for then in self._waiting.pop(tree_id, []):
            then(refused)
