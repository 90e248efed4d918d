"""PortUrls: where ports of sandboxes are reached from outside: private previews of what the sidekick API names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from atoll.domain.errors import AtollError
from atoll.domain.preview import Preview
from atoll.domain.principal import Principal

NOTICED = {"registered_by": "signals"}  # the metadata of what nobody asked for; whoever registers it takes it away


class PreviewPorts(Protocol):
    """What this asks of the previews."""

    async def register(
        self, principal: Principal, sandbox_id: str, port: int, *, metadata: Mapping[str, str] | None = None
    ) -> Preview: ...

    async def get(self, principal: Principal, sandbox_id: str, port: int) -> Preview: ...

    async def list(self, principal: Principal) -> list[Preview]: ...

    async def remove(self, principal: Principal, sandbox_id: str, port: int) -> Preview: ...

    def url(self, preview: Preview, base: str) -> str: ...


class PortUrls:
    """`base` is where clients reach this server, for who is told of a port without having asked."""

    def __init__(self, previews: PreviewPorts, base: str) -> None:
        self._previews = previews
        self.base = base

    def at(self, sandbox_id: str, port: int, base: str) -> str:
        """Where it is reached, whether or not it is registered."""
        return self._previews.url(Preview(sandbox_id, port, "", "", datetime.now(UTC)), base)

    async def open(self, principal: Principal, sandbox_id: str, port: int, base: str | None = None) -> str:
        """Register the port, unless it is; empty where that may not be."""
        try:
            return self._previews.url(await self._preview(principal, sandbox_id, port), base or self.base)
        except AtollError:
            return ""

    async def notice(self, principal: Principal, sandbox_id: str, port: int, base: str) -> tuple[str, bool]:
        """As `open`, for what nobody asked for; and whether it is to be taken away again."""
        try:
            preview = await self._preview(principal, sandbox_id, port, NOTICED)
        except AtollError:
            return "", False
        return self._previews.url(preview, base), preview.metadata == NOTICED

    async def noticed(self, principal: Principal, sandbox_id: str) -> set[int]:
        """The ports that are registered for nobody."""
        of_it = replace(principal, resources=frozenset({sandbox_id}))
        return {one.port for one in await self._previews.list(of_it) if one.metadata == NOTICED}

    async def drop(self, principal: Principal, sandbox_id: str, port: int) -> None:
        """Take a port away that was noticed; not one that somebody has registered since."""
        with suppress(AtollError):
            if (await self._previews.get(principal, sandbox_id, port)).metadata == NOTICED:
                await self._previews.remove(principal, sandbox_id, port)

    async def _preview(
        self, principal: Principal, sandbox_id: str, port: int, metadata: Mapping[str, str] | None = None
    ) -> Preview:
        try:
            return await self._previews.get(principal, sandbox_id, port)
        except AtollError:
            return await self._previews.register(principal, sandbox_id, port, metadata=metadata)
