"""FileWatching: follow what changes below a folder of a sandbox; surfaces reach it as `sandboxes.watches`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from atoll.domain.errors import InvalidInput, NotFound
from atoll.domain.file_change import FileChange
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import SandboxState
from atoll.services.access import Access, not_running
from atoll.services.lives import Live
from atoll.services.paths import absolute, check_path
from atoll.sidekick.client import WatchStream

PATTERNS_MAX, PATTERN_CHARACTERS_MAX = 64, 256
QUIET_S = 15.0
PLACE_S = 60.0  # for looking through a large tree


class Watched:
    """A watch that is in place; iterate over what it tells, in pieces, within `FileWatching.follow`."""

    def __init__(self, access: Access, live: Live, stream: WatchStream) -> None:
        self._access = access
        self._live = live
        self._stream = stream
        self.path = stream.path

    async def __aiter__(self) -> AsyncIterator[list[FileChange]]:
        """Conflict `session not running: status=<s>` when the sandbox ends or goes to rest."""
        try:
            async for piece in self._stream:
                yield piece
        except NotFound:
            async with self._access.inside(self._live, "watching", within_s=None):
                raise


class FileWatching:
    """Watches. They are no use of the sandbox: it may go to rest under them."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._drained = asyncio.Event()

    @asynccontextmanager
    async def follow(
        self,
        principal: Principal,
        sandbox_id: str,
        path: str,
        *,
        ignored: Sequence[str] = (),
        wakes: bool = True,
    ) -> AsyncGenerator[Watched]:
        """A watch of a folder with all below it, or of one file, until it is left. Needs `read`.

        What is there when it begins is not told. InvalidInput `path` or `ignored`, NotFound, TooLarge for more folders
        than one watch holds, Unavailable for more watches than one sandbox has; Conflict unless the sandbox runs; one
        that rests is woken if `wakes`.
        """
        access = self._access
        live = await self.live(principal, sandbox_id, wakes=wakes)
        checked = check_path(path, field="path", bytes_max=access.limits.path_bytes_max)
        whole = absolute(checked, live.sandbox.spec.work_dir)
        check_ignored(ignored)
        async with access.inside(live, "placing the watch", within_s=PLACE_S):
            stream = await access.runtime.sidekick(live.sandbox.id).watch(whole, ignored)
        try:
            yield Watched(access, live, stream)
        finally:
            await stream.close()

    async def stream(
        self, principal: Principal, sandbox_id: str, path: str, *, ignored: Sequence[str] = ()
    ) -> AsyncGenerator[str | list[FileChange] | None, None]:
        """The path that is watched, once it is, then what changes, and None now and then when nothing does; ends when
        the server does. Errors as from `follow`. Close it."""
        async with self.follow(principal, sandbox_id, path, ignored=ignored) as watched:
            yield watched.path
            pieces = aiter(watched)
            next_piece = asyncio.ensure_future(anext(pieces))
            drained = asyncio.ensure_future(self._drained.wait())
            try:
                while not drained.done():
                    done, _ = await asyncio.wait(
                        (next_piece, drained), timeout=QUIET_S, return_when=asyncio.FIRST_COMPLETED
                    )
                    if next_piece in done:
                        yield next_piece.result()
                        next_piece = asyncio.ensure_future(anext(pieces))
                    elif not done:
                        yield None
            finally:
                for task in (next_piece, drained):
                    task.cancel()
                await asyncio.wait((next_piece, drained))
                if not next_piece.cancelled():
                    next_piece.exception()  # nobody asks for it any more

    def drain(self) -> None:
        """The server stops: streams end."""
        self._drained.set()

    async def live(self, principal: Principal, sandbox_id: str, *, wakes: bool) -> Live:
        access = self._access
        if not wakes:
            sandbox = await access.find(principal, sandbox_id, Scope.READ)
            if sandbox.state is not SandboxState.RUNNING:
                raise not_running(sandbox)
        return await access.running(principal, sandbox_id, Scope.READ)


def check_ignored(ignored: Sequence[str]) -> None:
    """InvalidInput (`ignored`) for patterns that are too many or too long, or no text."""
    if len(ignored) > PATTERNS_MAX:
        raise InvalidInput(f"ignored has more than {PATTERNS_MAX} patterns", field="ignored")
    for pattern in ignored:
        if not pattern or len(pattern) > PATTERN_CHARACTERS_MAX or "\0" in pattern or not _is_text(pattern):
            message = f"ignored: a pattern has 1 to {PATTERN_CHARACTERS_MAX} characters, and no NUL"
            raise InvalidInput(message, field="ignored")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
