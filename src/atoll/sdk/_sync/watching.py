# Made by scripts/unasync.py from ../_async/watching.py: change that file, not this one.
"""Changes of files in a sandbox, as they happen: what `sandbox.watch` gives."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from atoll.domain.errors import Conflict
from atoll.domain.file_change import ChangeKind, FileChange
from atoll.sdk._sync.api import Api
from atoll.sdk._sync.http import Body
from atoll.sdk.errors import ConnectionFailed
from atoll.sdk.requests import target_of
from atoll.sdk.sse import EventReader

SILENCE_S = 60.0  # the server says something every few seconds


class Watch:
    """Iterate it, or use it as a context, which closes it. Each change has `kind` and `path`; `ChangeKind.OVERFLOW`
    says that some were lost. Conflict when the sandbox ends, or goes to rest, under it."""

    def __init__(self, body: Body) -> None:
        self.path = ""  # what is watched, absolute
        self._body = body
        self._changes = self._read()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> FileChange:
        while True:
            change = self._changes.__next__()
            if change is not None:
                return change

    def begin(self) -> None:
        """Returns once the watch is in place."""
        try:
            while not self.path:
                self._changes.__next__()
        except StopIteration:
            raise ConnectionFailed("the stream of changes ended before it began") from None

    def close(self) -> None:
        """A second call does nothing."""
        self._changes.close()

    def _read(self) -> Generator[FileChange | None]:
        reader = EventReader()
        with self._body as body:
            for piece in body:
                for found in reader.feed(piece):
                    value: Any = json.loads(found.data)
                    if found.event == "change":
                        yield FileChange(ChangeKind(value["event"]), value["path"])
                    elif found.event == "watching":
                        self.path = value["path"]
                        yield None
                    elif found.event == "end":
                        raise Conflict(value["message"])


def watch(api: Api, base: str, path: str, ignored: Sequence[str]) -> Watch:
    """A watch that is in place."""
    target = target_of(f"{base}/watch", path=path) + "".join(f"&ignored={quote(one, safe='')}" for one in ignored)
    body = api.stream(target, timeout_s=SILENCE_S, headers={"Accept": "text/event-stream"})
    watch = Watch(body)
    try:
        watch.begin()
    except BaseException:
        watch.close()
        raise
    return watch
