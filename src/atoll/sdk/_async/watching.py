"""Changes of files in a sandbox, as they happen: what `sandbox.watch` gives."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from atoll.domain.errors import Conflict
from atoll.domain.file_change import ChangeKind, FileChange
from atoll.sdk._async.api import AsyncApi
from atoll.sdk._async.http import AsyncBody
from atoll.sdk.errors import ConnectionFailed
from atoll.sdk.requests import target_of
from atoll.sdk.sse import EventReader

SILENCE_S = 60.0  # the server says something every few seconds


class AsyncWatch:
    """Iterate it, or use it as a context, which closes it. Each change has `kind` and `path`; `ChangeKind.OVERFLOW`
    says that some were lost. Conflict when the sandbox ends, or goes to rest, under it."""

    def __init__(self, body: AsyncBody) -> None:
        self.path = ""  # what is watched, absolute
        self._body = body
        self._changes = self._read()

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> FileChange:
        while True:
            change = await self._changes.__anext__()
            if change is not None:
                return change

    async def begin(self) -> None:
        """Returns once the watch is in place."""
        try:
            while not self.path:
                await self._changes.__anext__()
        except StopAsyncIteration:
            raise ConnectionFailed("the stream of changes ended before it began") from None

    async def close(self) -> None:
        """A second call does nothing."""
        await self._changes.aclose()

    async def _read(self) -> AsyncGenerator[FileChange | None]:
        reader = EventReader()
        async with self._body as body:
            async for piece in body:
                for found in reader.feed(piece):
                    value: Any = json.loads(found.data)
                    if found.event == "change":
                        yield FileChange(ChangeKind(value["event"]), value["path"])
                    elif found.event == "watching":
                        self.path = value["path"]
                        yield None
                    elif found.event == "end":
                        raise Conflict(value["message"])


async def async_watch(api: AsyncApi, base: str, path: str, ignored: Sequence[str]) -> AsyncWatch:
    """A watch that is in place."""
    target = target_of(f"{base}/watch", path=path) + "".join(f"&ignored={quote(one, safe='')}" for one in ignored)
    body = await api.stream(target, timeout_s=SILENCE_S, headers={"Accept": "text/event-stream"})
    watch = AsyncWatch(body)
    try:
        await watch.begin()
    except BaseException:
        await watch.close()
        raise
    return watch
