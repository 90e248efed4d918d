"""Files: read, write, list and move files in a sandbox; surfaces reach it as `sandboxes.files`.

A path is text of 1 to 4096 bytes of UTF-8 without NUL; a relative one starts at the sandbox's work_dir. The sidekick
resolves it inside, as the sandbox: `..` and symlinks cannot leave.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from atoll.domain.principal import Principal
from atoll.domain.process import FileEntry


class Files:
    """All of them: InvalidInput(field) for a path that breaks the rule, NotFound for sandbox or file, Conflict
    `session not running: status=<s>` unless the sandbox runs."""

    async def read(self, principal: Principal, sandbox_id: str, path: str) -> tuple[FileEntry, AsyncIterator[bytes]]:
        """A regular file's entry and its bytes. Needs `read`. Iterate to the end or `aclose()` the iterator."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def list(self, principal: Principal, sandbox_id: str, path: str) -> list[FileEntry]:
        """The entries of a directory, sorted by name. Needs `read`."""
        raise NotImplementedError

    async def stat(self, principal: Principal, sandbox_id: str, path: str) -> FileEntry:
        """Needs `read`."""
        raise NotImplementedError

    async def make_dir(self, principal: Principal, sandbox_id: str, path: str) -> None:
        """With parents; no error when it exists. Needs `write`."""
        raise NotImplementedError

    async def remove(self, principal: Principal, sandbox_id: str, path: str, *, recursive: bool = False) -> None:
        """Needs `write`."""
        raise NotImplementedError

    async def move(self, principal: Principal, sandbox_id: str, source: str, destination: str) -> None:
        """Needs `write`."""
        raise NotImplementedError
