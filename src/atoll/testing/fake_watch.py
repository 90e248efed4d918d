"""What a fake sandbox tells of its files and ports: found by looking often, since nothing in it tells of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from atoll.domain.file_change import ChangeKind, FileChange
from atoll.sidekick.client import WatchStream
from atoll.sidekick.globs import Globs
from atoll.testing.fake_files import FakeFiles

LOOK_S = 0.01
_State = dict[str, tuple[str, float, bytes]]


class FakeWatch(WatchStream):
    """NotFound, as from the sidekick, for a path that is not there, and once the sandbox has ended."""

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self, files: Callable[[], FakeFiles], path: str, ignored: Sequence[str]
    ) -> None:
        self._files = files
        self.path = "/" + path.strip("/")
        self._globs = Globs(list(ignored), self.path)
        self.kind = "directory" if files().stat(path).kind == "directory" else "file"
        self._before = self._look()

    async def __aiter__(self) -> AsyncIterator[list[FileChange]]:
        while True:
            await asyncio.sleep(LOOK_S)
            now, before = self._look(), self._before
            self._before = now
            found = [FileChange(_gone(before[path]), path) for path in sorted(set(before) - set(now), reverse=True)]
            found += [FileChange(_new(now[path]), path) for path in sorted(set(now) - set(before))]
            found += [
                FileChange(ChangeKind.CHANGE, path)
                for path in sorted(set(now) & set(before))
                if now[path] != before[path] and now[path][0] != "directory"
            ]
            if found:
                yield found

    async def close(self) -> None: ...

    def _look(self) -> _State:
        inside = self.path.rstrip("/") + "/"
        return {
            path: (node.kind, node.modified_at, node.content)
            for path, node in self._files().walk()
            if (path.startswith(inside) and not self._ignores(path.removeprefix(inside)))
            or (self.kind == "file" and path == self.path)
        }

    def _ignores(self, path: str) -> bool:
        parts = path.split("/")
        return any(self._globs.match("/".join(parts[:end])) for end in range(1, len(parts) + 1))


def _new(state: tuple[str, float, bytes]) -> ChangeKind:
    return ChangeKind.ADD_DIR if state[0] == "directory" else ChangeKind.ADD


def _gone(state: tuple[str, float, bytes]) -> ChangeKind:
    return ChangeKind.UNLINK_DIR if state[0] == "directory" else ChangeKind.UNLINK


async def listening(ports: Callable[[], set[int]]) -> AsyncIterator[list[int]]:
    told: list[int] | None = None
    while True:
        now = sorted(ports())
        if now != told:
            told = now
            yield now
        await asyncio.sleep(LOOK_S)
