"""Changes: what a watch is about to tell: many changes of one path become one, and more than fit become an overflow."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from atoll.sidekick.loop import Loop, Timer

ADD, CHANGE, UNLINK, ADD_DIR, UNLINK_DIR = "add", "change", "unlink", "addDir", "unlinkDir"
OVERFLOW = "overflow"  # some were lost: whoever wants to know looks again

GATHER_S = 0.05  # so long changes of one path are gathered
PENDING_MAX = 10_000
PIECE = 32  # of one frame: paths of 4096 bytes, each written as \u0001, still fit

_FOLDERS = (ADD_DIR, UNLINK_DIR)
# what an earlier and a later change of one path are together; None: nothing happened
_TOGETHER: dict[tuple[str, str], str | None] = {
    (ADD, CHANGE): ADD,
    (ADD, UNLINK): None,
    (UNLINK, ADD): CHANGE,
    (ADD_DIR, UNLINK_DIR): None,
    (UNLINK_DIR, ADD_DIR): None,
}


class Changes:
    """Gathers them and hands them on in pieces while `has_room`; the owner calls `tell` when there is room again."""

    def __init__(self, loop: Loop, send: Callable[[list[list[str]]], None], has_room: Callable[[], bool]) -> None:
        self._loop = loop
        self._send = send
        self._has_room = has_room
        self._pending: dict[tuple[str, bool], str] = {}  # by path, and whether it is of a folder
        self._lost = False
        self._timer: Timer | None = None

    def add(self, event: str, path: str) -> None:
        key = (path, event in _FOLDERS)
        before = self._pending.pop(key, None)
        together: str | None = event if before is None else _TOGETHER.get((before, event), event)
        if together is not None:
            if len(self._pending) >= PENDING_MAX:
                self._lost = True
            else:
                self._pending[key] = together
        self._soon()

    def overflow(self) -> None:
        self._lost = True
        self._soon()

    def tell(self) -> None:
        """Whatever is gathered by now, as far as there is room."""
        self._timer = None
        if self._lost and self._has_room():
            self._lost = False
            self._send([[OVERFLOW, ""]])
        while self._pending and self._has_room():
            keys = [key for key, _ in zip(self._pending, range(PIECE), strict=False)]
            self._send([[self._pending.pop(key), _printable(key[0])] for key in keys])

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._pending.clear()
        self._lost = False

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.after(GATHER_S, self.tell)


def _printable(path: str) -> str:
    return path if path.isascii() else path.encode("utf-8", "replace").decode()
