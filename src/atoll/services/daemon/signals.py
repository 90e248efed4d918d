"""Signals: ports that open and close, servers that are ready, errors: told at a sandbox's event sockets while active.

Programs tell of themselves through the sidekick API; ports are noticed besides. Whether a sandbox's signals are active
is a fixture: they go on after a restart of the server, and when the sandbox wakes.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound
from atoll.domain.fixture import Fixture, FixtureKind
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import SandboxState
from atoll.services.daemon.fixtures import Fixtures, owner_of
from atoll.services.daemon.hub import Hubs
from atoll.services.daemon.noticed_ports import NoticedPorts
from atoll.services.daemon.port_urls import PortUrls
from atoll.services.specs import check_port

CHANNEL = "signals"
NAME = "signals"
TEXT_CHARACTERS_MAX = 4096
AGAIN_S = 1.0


class Signals:
    """Starts and stops them, and passes them on."""

    def __init__(self, fixtures: Fixtures, hubs: Hubs, urls: PortUrls) -> None:
        self._fixtures = fixtures
        self._sandboxes = fixtures.sandboxes
        self._hubs = hubs
        self._urls = urls
        self._active: dict[str, str] = {}  # by sandbox: where the one who started them reached this server

    async def start(self, principal: Principal, sandbox_id: str, base: str = "") -> None:
        """No error when they are active. Addresses of ports are told as those who come to `base` reach them. Needs
        `execute`."""
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        spec = {"base": base}
        try:
            made = await self._fixtures.add(principal, sandbox, FixtureKind.SIGNALS, NAME, spec, {}, quota=1)
        except Conflict:
            if sandbox.ended:
                raise
            return
        if sandbox.state is SandboxState.RUNNING:
            self.adopt(made)

    async def stop(self, principal: Principal, sandbox_id: str) -> None:
        """No error when they are not active. Needs `execute`."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        try:
            found = await self._fixtures.get(sandbox_id, FixtureKind.SIGNALS, NAME)
            await self._fixtures.delete(found, principal.id)
        except NotFound:
            return
        finally:
            self._active.pop(sandbox_id, None)
        await self._fixtures.leave(found.id)

    async def active(self, principal: Principal, sandbox_id: str) -> bool:
        """Needs `read`."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.READ)
        return bool(await self._fixtures.list(sandbox_id, FixtureKind.SIGNALS))

    async def port(
        self, principal: Principal, sandbox_id: str, port: int, kind: str, url: str | None, base: str = ""
    ) -> str:
        """Tell that a port was opened or closed; its address, which is the preview's unless one is given. Needs
        `execute`. InvalidInput `port`, `type`, `url`."""
        if kind not in ("open", "close"):
            raise InvalidInput("type must be open or close", field="type")
        found = await self._checked(principal, sandbox_id, port, url, base)
        self.tell(sandbox_id, {"signal": "port", "port": port, "type": kind, "url": found})
        return found

    async def server_ready(
        self, principal: Principal, sandbox_id: str, port: int, url: str | None, base: str = ""
    ) -> str:
        """Tell that a server answers at a port; its address. Needs `execute`."""
        found = await self._checked(principal, sandbox_id, port, url, base)
        self.tell(sandbox_id, {"signal": "server-ready", "port": port, "url": found})
        return found

    async def error(self, principal: Principal, sandbox_id: str, message: str) -> None:
        """Needs `execute`. InvalidInput `message`."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        if not message or len(message) > TEXT_CHARACTERS_MAX:
            raise InvalidInput(f"message must have 1 to {TEXT_CHARACTERS_MAX} characters", field="message")
        self.tell(sandbox_id, {"signal": "error", "message": message})

    def tell(self, sandbox_id: str, data: dict[str, Any]) -> None:
        """To all who listen, while signals are active."""
        if sandbox_id in self._active:
            self._hubs.of(sandbox_id).publish("signal", CHANNEL, data)

    def base(self, sandbox_id: str) -> str | None:
        """Where those who listen reach this server, where that is known."""
        return self._active.get(sandbox_id) or None

    def adopt(self, fixture: Fixture) -> None:
        """Of a sandbox that runs."""
        self._active[fixture.sandbox] = fixture.spec.get("base", "")
        self._fixtures.attend(fixture, lambda: self._attend(fixture))

    def forget(self, sandbox_id: str) -> None:
        """Nothing is left of the sandbox."""
        self._active.pop(sandbox_id, None)

    async def _checked(self, principal: Principal, sandbox_id: str, port: int, url: str | None, base: str) -> str:
        await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        check_port(port)
        if url is not None:
            if not url or len(url) > TEXT_CHARACTERS_MAX:
                raise InvalidInput(f"url must have 1 to {TEXT_CHARACTERS_MAX} characters", field="url")
            if not _is_web(url):  # who listens may open it in a browser
                raise InvalidInput("url must begin with http:// or https://, and name a host", field="url")
            return url
        return await self._urls.open(principal, sandbox_id, port, base or None)

    async def _attend(self, fixture: Fixture) -> None:
        """Notice ports, while the sandbox runs."""
        owner = owner_of(fixture)
        noticed = NoticedPorts(self._urls, owner, fixture.sandbox, self._active.get(fixture.sandbox))
        sweeping = asyncio.create_task(noticed.sweep())
        try:
            await self._follow(fixture, owner, noticed)
        finally:
            sweeping.cancel()
            await asyncio.wait((sweeping,))

    async def _follow(self, fixture: Fixture, owner: Principal, noticed: NoticedPorts) -> None:
        known: set[int] | None = None
        while (await self._sandboxes.get(owner, fixture.sandbox)).state is SandboxState.RUNNING:
            try:
                async with aclosing(self._sandboxes.open_ports.follow(owner, fixture.sandbox)) as pieces:
                    async for ports in pieces:
                        if known is None:
                            await noticed.begin(set(ports))
                        else:
                            await self._tell(fixture.sandbox, noticed, known, set(ports))
                        known = set(ports)
            except AtollError:
                pass
            await asyncio.sleep(AGAIN_S)

    async def _tell(self, sandbox_id: str, noticed: NoticedPorts, before: set[int], now: set[int]) -> None:
        for port in before - now:
            url = noticed.closed(port)
            self.tell(sandbox_id, {"signal": "port", "port": port, "type": "close", "url": url})
        for port in now - before:
            url = await noticed.opened(port)
            self.tell(sandbox_id, {"signal": "port", "port": port, "type": "open", "url": url})


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
