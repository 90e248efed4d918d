"""The handlers of servers of the sidekick API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.services.daemon.port_urls import PortUrls
from atoll.services.daemon.server_spec import ServerStatus
from atoll.services.daemon.servers import Server, Servers
from atoll.surfaces.addresses import Addresses
from atoll.surfaces.bodies import read_model
from atoll.surfaces.operation import Parameter
from atoll.surfaces.sidekick import tools_answers as answers
from atoll.surfaces.sidekick import tools_bodies as bodies
from atoll.surfaces.sidekick.tools_handlers import succeeded

STREAM = Parameter("stream", "what of it; default: combined", choices=("stdout", "stderr", "combined"))


class ServerHandlers:
    """One method for each operation."""

    def __init__(self, servers: Servers, urls: PortUrls, addresses: Addresses, body_bytes: int) -> None:
        self._servers = servers
        self._urls = urls
        self._addresses = addresses
        self._body_bytes = body_bytes

    async def list(self, request: Request, principal: Principal) -> Response:
        found = await self._servers.list(principal, request.path_params["id"])
        return succeeded("Servers", {"servers": [self._shown(request, one) for one in found]})

    async def start(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.ServerBody, self._body_bytes)
        made = await self._servers.start(principal, request.path_params["id"], body.spec(), body.overlay_specs())
        return self._one(request, "Server started", made, 201)

    async def get(self, request: Request, principal: Principal) -> Response:
        found = await self._servers.get(principal, request.path_params["id"], request.path_params["slug"])
        return self._one(request, "Server", found)

    async def stop(self, request: Request, principal: Principal) -> Response:
        slug = request.path_params["slug"]
        await self._servers.stop(principal, request.path_params["id"], slug)
        return succeeded("Server stopped", {"slug": slug})

    async def restart(self, request: Request, principal: Principal) -> Response:
        found = await self._servers.restart(principal, request.path_params["id"], request.path_params["slug"])
        return self._one(request, "Server restarted", found)

    async def remove(self, request: Request, principal: Principal) -> Response:
        await self._servers.remove(principal, request.path_params["id"], request.path_params["slug"])
        return Response(status_code=204)

    async def logs(self, request: Request, principal: Principal) -> Response:
        slug, stream = request.path_params["slug"], STREAM.text(request) or "combined"
        text = await self._servers.logs(principal, request.path_params["id"], slug, stream)
        return succeeded("Server logs", {"slug": slug, "stream": stream, "logs": text})

    async def set_status(self, request: Request, principal: Principal) -> Response:
        slug = request.path_params["slug"]
        body = await read_model(request, bodies.StatusBody, self._body_bytes)
        await self._servers.set_status(principal, request.path_params["id"], slug, ServerStatus(body.status))
        return succeeded("Server status updated", {"slug": slug, "status": body.status})

    def _one(self, request: Request, message: str, found: Server, status: int = 200) -> Response:
        shown = self._shown(request, found)
        return succeeded(message, {**shown, "server": shown}, status)

    def _shown(self, request: Request, found: Server) -> answers.Json:
        port = found.fixture.state.get("port")
        base = self._addresses.base(request)
        return answers.server(found, self._urls.at(found.fixture.sandbox, port, base) if port else None)
