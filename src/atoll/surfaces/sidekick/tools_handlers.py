"""The handlers of watchers, signals, environment files and overlays of the sidekick API."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput, NotFound
from atoll.domain.principal import Principal
from atoll.services.daemon.env_files import DEFAULT_FILE, EnvFiles
from atoll.services.daemon.overlays import Overlays
from atoll.services.daemon.signals import CHANNEL, Signals
from atoll.services.daemon.watchers import Watchers
from atoll.surfaces.addresses import Addresses
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.operation import Parameter
from atoll.surfaces.sidekick import tools_answers as answers
from atoll.surfaces.sidekick import tools_bodies as bodies
from atoll.surfaces.sidekick.errors import done

FILE = Parameter("file", "its path; default: .env in the work directory")


def succeeded(message: str, data: Any, status: int = 200) -> Response:
    """As some of these routes answer."""
    return json_response({"status": "success", "message": message, "data": data}, status)


class WatcherHandlers:
    """One method for each operation."""

    def __init__(self, watchers: Watchers, addresses: Addresses, body_bytes: int) -> None:
        self._watchers = watchers
        self._addresses = addresses
        self._body_bytes = body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.WatcherBody, self._body_bytes)
        made = await self._watchers.add(
            principal,
            request.path_params["id"],
            body.path,
            include_content=bool(body.includeContent),
            ignored=tuple(body.ignored or ()),
            encoding=body.encoding or "raw",
        )
        return done("Watcher created", answers.watcher(made, self._url(request)), 201)

    async def list(self, request: Request, principal: Principal) -> Response:
        found = await self._watchers.list(principal, request.path_params["id"])
        url = self._url(request)
        return done("Watchers", {"watchers": [answers.watcher(one, url) for one in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        found = await self._watchers.get(principal, request.path_params["id"], request.path_params["watcher"])
        return done("Watcher", answers.watcher(found, self._url(request)))

    async def remove(self, request: Request, principal: Principal) -> Response:
        await self._watchers.remove(principal, request.path_params["id"], request.path_params["watcher"])
        return Response(status_code=204)

    def _url(self, request: Request) -> str:
        return self._addresses.events(request, request.path_params["id"])


class SignalHandlers:
    """One method for each operation."""

    def __init__(self, signals: Signals, addresses: Addresses, body_bytes: int) -> None:
        self._signals = signals
        self._addresses = addresses
        self._body_bytes = body_bytes

    async def start(self, request: Request, principal: Principal) -> Response:
        await self._signals.start(principal, request.path_params["id"], self._addresses.base(request))
        return self._state(request, "Signals started", active=True)

    async def stop(self, request: Request, principal: Principal) -> Response:
        await self._signals.stop(principal, request.path_params["id"])
        return self._state(request, "Signals stopped", active=False)

    async def status(self, request: Request, principal: Principal) -> Response:
        active = await self._signals.active(principal, request.path_params["id"])
        return self._state(request, "Signals", active=active)

    async def port(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.PortBody, self._body_bytes)
        return await self._port(request, principal, body.port, body.type, body.url)

    async def port_in_path(self, request: Request, principal: Principal) -> Response:
        text = request.path_params["port"]
        if not (text.isascii() and text.isdigit() and len(text) < 6):
            raise InvalidInput("port must be within 1..65535", field="port")
        body = await read_model(request, bodies.PortUrlBody, self._body_bytes, optional=True)
        return await self._port(request, principal, int(text), request.path_params["type"], body.url)

    async def ready(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.ReadyBody, self._body_bytes)
        base = self._addresses.base(request)
        url = await self._signals.server_ready(principal, request.path_params["id"], body.port, body.url, base)
        return done("Server ready signal sent", {"port": body.port, "url": url})

    async def error(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.ErrorBody, self._body_bytes)
        await self._signals.error(principal, request.path_params["id"], body.message)
        return done("Error signal sent", {"message": body.message})

    async def _port(self, request: Request, principal: Principal, port: int, kind: str, url: str | None) -> Response:
        base = self._addresses.base(request)
        found = await self._signals.port(principal, request.path_params["id"], port, kind, url, base)
        return done("Port signal sent", {"port": port, "type": kind, "url": found})

    def _state(self, request: Request, message: str, *, active: bool) -> Response:
        url = self._addresses.events(request, request.path_params["id"])
        return done(message, {"status": "active" if active else "stopped", "channel": CHANNEL, "ws_url": url})


class EnvHandlers:
    """One method for each operation."""

    def __init__(self, files: EnvFiles, body_bytes: int) -> None:
        self._files = files
        self._body_bytes = body_bytes

    async def read(self, request: Request, principal: Principal) -> Response:
        file = FILE.text(request) or DEFAULT_FILE
        variables = await self._files.read(principal, request.path_params["id"], file)
        return succeeded("Environment variables", {"file": file, "variables": variables})

    async def exists(self, request: Request, principal: Principal) -> Response:
        if not await self._files.exists(principal, request.path_params["id"], FILE.text(request) or DEFAULT_FILE):
            raise NotFound("no such file")
        return Response(status_code=200)

    async def set(self, request: Request, principal: Principal) -> Response:
        file = FILE.text(request) or DEFAULT_FILE
        body = await read_model(request, bodies.EnvSetBody, self._body_bytes)
        keys = await self._files.set(principal, request.path_params["id"], body.variables, file)
        return succeeded("Environment variables set", {"file": file, "keys": keys})

    async def unset(self, request: Request, principal: Principal) -> Response:
        file = FILE.text(request) or DEFAULT_FILE
        body = await read_model(request, bodies.EnvUnsetBody, self._body_bytes)
        keys = await self._files.unset(principal, request.path_params["id"], body.keys, file)
        return succeeded("Environment variables deleted", {"file": file, "keys": keys})


class OverlayHandlers:
    """One method for each operation; their answers have no envelope."""

    def __init__(self, overlays: Overlays, body_bytes: int) -> None:
        self._overlays = overlays
        self._body_bytes = body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.OverlayBody, self._body_bytes)
        made = await self._overlays.add(principal, request.path_params["id"], body.spec())
        return json_response(answers.overlay(made), 201)

    async def list(self, request: Request, principal: Principal) -> Response:
        found = await self._overlays.list(principal, request.path_params["id"])
        return json_response({"overlays": [answers.overlay(one) for one in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        found = await self._overlays.get(principal, request.path_params["id"], request.path_params["overlay"])
        return json_response(answers.overlay(found))

    async def remove(self, request: Request, principal: Principal) -> Response:
        await self._overlays.remove(principal, request.path_params["id"], request.path_params["overlay"])
        return Response(status_code=204)
