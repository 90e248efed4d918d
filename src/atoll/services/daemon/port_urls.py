"""PortUrls: where ports of sandboxes are reached from outside: private previews of what the sidekick API names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from atoll.domain.errors import AtollError, NotFound
from atoll.domain.preview import REGISTERED_BY, Preview
from atoll.domain.principal import Principal

NOTICED = {REGISTERED_BY: "signals"}


class PreviewPorts(Protocol):
    """What this asks of the previews."""

    async def register(
        self, principal: Principal, sandbox_id: str, port: int, *, metadata: Mapping[str, str] = ...
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
        return await self._registered(principal, sandbox_id, NOTICED)

    async def drop(self, principal: Principal, sandbox_id: str, port: int, by: Mapping[str, str] = NOTICED) -> None:
        """Take a port away that was registered so; not one that somebody has registered since."""
        with suppress(AtollError):
            if (await self._previews.get(principal, sandbox_id, port)).metadata == by:
                await self._previews.remove(principal, sandbox_id, port)

    async def serve(self, owner: Principal, sandbox_id: str, slug: str, port: int, base: str | None) -> str:
        """As `open`, for the server `slug`: the one port that is registered for it from now on."""
        await self.unserve(owner, sandbox_id, slug, but=port)
        by = _server(slug)
        try:
            preview = await self._preview(owner, sandbox_id, port, by)
            if preview.unasked and preview.metadata != by:  # it was only noticed, or another server had the port before
                preview = await self._previews.register(owner, sandbox_id, port, metadata=by)
        except AtollError:
            return ""
        return self._previews.url(preview, base or self.base)

    async def unserve(self, owner: Principal, sandbox_id: str, slug: str, *, but: int | None = None) -> None:
        """The server does not listen any more, but at that port: take away what was registered for it."""
        by = _server(slug)
        with suppress(AtollError):
            for port in await self._registered(owner, sandbox_id, by) - {but}:
                await self.drop(owner, sandbox_id, port, by)

    async def _registered(self, principal: Principal, sandbox_id: str, by: Mapping[str, str]) -> set[int]:
        of_it = replace(principal, resources=frozenset({sandbox_id}))
        return {one.port for one in await self._previews.list(of_it) if one.metadata == by}

    async def _preview(
        self, principal: Principal, sandbox_id: str, port: int, by: Mapping[str, str] | None = None
    ) -> Preview:
        try:
            return await self._previews.get(principal, sandbox_id, port)
        except NotFound:
            return await self._previews.register(principal, sandbox_id, port, metadata=by or {})


def _server(slug: str) -> dict[str, str]:
    return {REGISTERED_BY: f"server {slug}"}
