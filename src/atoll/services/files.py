"""Files: read, write, list and move files in a sandbox; surfaces reach it as `sandboxes.files`.

A path is text of 1 to 4096 bytes of UTF-8 without NUL; a relative one starts at the sandbox's work_dir. The sidekick
resolves it inside, as the sandbox: `..` and symlinks cannot leave.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from atoll.domain.errors import AtollError, InvalidInput
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.process import FileEntry
from atoll.services.access import Access
from atoll.services.lives import Live
from atoll.services.paths import absolute, check_path
from atoll.sidekick.client import SidekickClient

MODE_MAX = 0o7777


class Files:
    """All of them: InvalidInput(field) for a path that breaks the rule, NotFound for sandbox or file, Conflict
    `session not running: status=<s>` unless the sandbox runs."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def check(self, principal: Principal, sandbox_id: str, scope: Scope) -> None:
        """Refuses as any call that needs the scope does: it tells a sandbox that is missing from a file that is."""
        await self._access.running(principal, sandbox_id, scope)

    async def read(self, principal: Principal, sandbox_id: str, path: str) -> tuple[FileEntry, AsyncIterator[bytes]]:
        """A regular file's entry and its bytes. Needs `read`. Iterate to the end or `aclose()` the iterator."""
        live, path = await self._open(principal, sandbox_id, path, Scope.READ)
        access = self._access
        async with access.inside(live, "opening the file", within_s=access.limits.call_s):
            entry, chunks = await self._sidekick(live).read_file(path)
        return entry, self._counted_out(live, chunks)

    async def write(
        self,
        principal: Principal,
        sandbox_id: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        mode: int | None = None,
    ) -> int:
        """Replace the file in one step, making parents; returns its size in bytes. Needs `write`."""
        live, path = await self._open(principal, sandbox_id, path, Scope.WRITE)
        if mode is not None and not 0 <= mode <= MODE_MAX:
            raise InvalidInput(f"mode must be within 0..{MODE_MAX:#o}", field="mode")
        # No deadline over the whole: the sidekick's client gives up a transfer that stalls.
        try:
            async with self._access.inside(live, "writing the file", within_s=None):
                size = await self._sidekick(live).write_file(path, _counted_in(live, chunks), mode=mode)
        except _SourceBroke as broke:
            raise broke.error from None
        self._access.mounting.changed(live.sandbox)
        return size

    async def list(self, principal: Principal, sandbox_id: str, path: str) -> list[FileEntry]:
        """The entries of a directory, sorted by name. Needs `read`."""
        live, path = await self._open(principal, sandbox_id, path, Scope.READ)
        async with self._access.inside(live, "listing the directory", within_s=self._access.limits.call_s):
            return await self._sidekick(live).list_dir(path)

    async def stat(self, principal: Principal, sandbox_id: str, path: str) -> FileEntry:
        """Symlinks are not followed. Needs `read`."""
        live, path = await self._open(principal, sandbox_id, path, Scope.READ)
        async with self._access.inside(live, "looking at the file", within_s=self._access.limits.call_s):
            return await self._sidekick(live).stat(path)

    async def make_dir(self, principal: Principal, sandbox_id: str, path: str) -> None:
        """With parents; no error when it exists. Needs `write`."""
        live, path = await self._open(principal, sandbox_id, path, Scope.WRITE)
        async with self._access.inside(live, "making the directory", within_s=self._access.limits.call_s):
            await self._sidekick(live).make_dir(path)
        self._access.mounting.changed(live.sandbox)

    async def remove(self, principal: Principal, sandbox_id: str, path: str, *, recursive: bool = False) -> None:
        """Conflict for a directory that is not empty, unless `recursive`. Needs `write`."""
        live, path = await self._open(principal, sandbox_id, path, Scope.WRITE)
        async with self._access.inside(live, "removing the file", within_s=self._access.limits.remove_s):
            await self._sidekick(live).remove(path, recursive=recursive)
        self._access.mounting.changed(live.sandbox)

    async def move(self, principal: Principal, sandbox_id: str, source: str, destination: str) -> None:
        """Needs `write`."""
        live, source = await self._open(principal, sandbox_id, source, Scope.WRITE, field="source")
        destination = self._path(live, destination, "destination")
        async with self._access.inside(live, "moving the file", within_s=self._access.limits.call_s):
            await self._sidekick(live).move(source, destination)
        self._access.mounting.changed(live.sandbox)

    async def _open(
        self, principal: Principal, sandbox_id: str, path: str, scope: Scope, *, field: str = "path"
    ) -> tuple[Live, str]:
        live = await self._access.running(principal, sandbox_id, scope)
        return live, self._path(live, path, field)

    def _path(self, live: Live, path: str, field: str) -> str:
        checked = check_path(path, field=field, bytes_max=self._access.limits.path_bytes_max)
        return absolute(checked, live.sandbox.spec.work_dir)

    def _sidekick(self, live: Live) -> SidekickClient:
        return self._access.runtime.sidekick(live.sandbox.id)

    async def _counted_out(self, live: Live, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async with self._access.inside(live, "reading the file", within_s=None):
                async for chunk in chunks:
                    live.bytes_out += len(chunk)
                    yield chunk
        finally:
            await _close(chunks)


class _SourceBroke(AtollError):
    """What the caller's own bytes come from broke off: no fault of the sandbox."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


async def _counted_in(live: Live, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            live.bytes_in += len(chunk)
            yield chunk
    except Exception as error:
        raise _SourceBroke(error) from error
    finally:
        await _close(chunks)


async def _close(chunks: AsyncIterator[bytes]) -> None:
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()
