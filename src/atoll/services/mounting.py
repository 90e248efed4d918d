"""Mounting: what the sandbox services ask of the workspaces service, if there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from atoll.domain.errors import Unsupported
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.domain.workspace import WorkspaceMount


class Mounting(Protocol):
    """Told of each sandbox with workspaces, from before it is made until nothing of it is left."""

    async def resolve(
        self, principal: Principal, mounts: Sequence[WorkspaceMount], owner: str | None = None
    ) -> tuple[WorkspaceMount, ...]:
        """The mounts with ids in place of what the principal calls the workspaces; errors for those that it, or the
        sandbox's `owner` if that is another, may not have."""
        ...

    async def prepare(
        self, sandbox_id: str, owner: str, mounts: Sequence[WorkspaceMount]
    ) -> tuple[WorkspaceMount, ...]:
        """The resolved mounts with their trees, ready for the runtime; Forbidden for those that the sandbox's owner
        may not have any more."""
        ...

    async def made(self, sandbox_id: str) -> None:
        """The runtime has made it."""
        ...

    async def seal_env(self, sandbox_id: str, env: Mapping[str, str], mounts: Sequence[WorkspaceMount]) -> str:
        """The environment as a record may keep it, under the key of the first resolved mount."""
        ...

    async def open_env(self, sandbox_id: str, sealed: str, mounts: Sequence[WorkspaceMount]) -> dict[str, str]:
        """What `seal_env` sealed. NotFound when the workspace is gone, Corrupt."""
        ...

    def changed(self, sandbox: Sandbox) -> None:
        """A process in it ended, or a file was written: a workspace may have changed."""
        ...

    def ended(self, sandbox: Sandbox) -> None:
        """Nothing of it is left, or it was never made; a second call does no harm."""
        ...


class NoMounting:
    """There is no workspaces service."""

    async def resolve(
        self, principal: Principal, mounts: Sequence[WorkspaceMount], owner: str | None = None
    ) -> tuple[WorkspaceMount, ...]:
        if mounts:
            raise Unsupported("this server keeps no workspaces")
        return ()

    async def prepare(
        self, sandbox_id: str, owner: str, mounts: Sequence[WorkspaceMount]
    ) -> tuple[WorkspaceMount, ...]:
        return ()

    async def made(self, sandbox_id: str) -> None:
        """Nothing is mounted."""

    async def seal_env(self, sandbox_id: str, env: Mapping[str, str], mounts: Sequence[WorkspaceMount]) -> str:
        return ""

    async def open_env(self, sandbox_id: str, sealed: str, mounts: Sequence[WorkspaceMount]) -> dict[str, str]:
        return {}

    def changed(self, sandbox: Sandbox) -> None:
        """Nothing is mounted."""

    def ended(self, sandbox: Sandbox) -> None:
        """Nothing was mounted."""
