"""What a server may ask of the node about working trees."""

from __future__ import annotations

from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.runtimes.local.box import Box
    from atoll.runtimes.local.keepers import Keepers
    from atoll.runtimes.local.mounting import Mounting
    from atoll.runtimes.local.node_wire import Operation, Reply
    from atoll.runtimes.local.trees import Trees


class TreeOperations:
    """`table` maps the operations' names; `get` finds a live sandbox's box, or raises Refused."""

    def __init__(
        self, trees: Trees, keepers: Keepers, mounting: Mounting, get: Callable[[dict[str, Any]], Box]
    ) -> None:
        self._trees = trees
        self._keepers = keepers
        self._mounting = mounting
        self._get = get
        self.table: dict[str, Operation] = {
            "make_tree": self.make_tree,
            "list_trees": self.list_trees,
            "tree_in_use": self.tree_in_use,
            "remove_tree": self.remove_tree,
            "keeper": self.keeper,
            "swap_tree": self.swap_tree,
            "tree_mounts": self.tree_mounts,
        }

    def make_tree(self, request: dict[str, Any], reply: Reply) -> None:
        self._trees.make(request["tree_id"], request["bytes"], request["inodes"], answer(reply))

    def list_trees(self, _request: dict[str, Any], reply: Reply) -> None:
        reply({"trees": self._trees.names()})

    def tree_in_use(self, request: dict[str, Any], reply: Reply) -> None:
        tree_id: str = request["tree_id"]
        if self._trees.users(tree_id) - {self._keepers.key(tree_id)}:
            reply({"in_use": True})
            return

        def told(in_use: bool, refused: Refused | None) -> None:
            if refused is None:
                reply({"in_use": in_use})
            else:
                answer(reply)(refused)

        self._keepers.end(tree_id, lambda: self._trees.in_use(tree_id, told))

    def remove_tree(self, request: dict[str, Any], reply: Reply) -> None:
        tree_id: str = request["tree_id"]
        if self._trees.users(tree_id) - {self._keepers.key(tree_id)}:
            raise Refused("conflict", f"tree {tree_id} is in use")
        self._keepers.end(tree_id, lambda: self._trees.remove(tree_id, answer(reply)))

    def keeper(self, request: dict[str, Any], reply: Reply) -> None:
        self._keepers.get(request["tree_id"], answer(reply))

    def swap_tree(self, request: dict[str, Any], reply: Reply) -> None:
        box = self._get(request)
        self._mounting.swap(box, request["path"], request["tree_id"], request["read_only"], answer(reply))

    def tree_mounts(self, request: dict[str, Any], reply: Reply) -> None:
        reply({"mounts": self._mounting.told(self._get(request))})


def answer(reply: Reply) -> Callable[[Refused | None], None]:
    """What tells a client how what it asked for went."""

    def tell(refused: Refused | None) -> None:
        reply({} if refused is None else {"error": {"code": refused.code, "message": refused.message}})

    return tell
