"""Furnishing: overlays and servers that come with a new sandbox, and what `/ready` tells of them; for the gateway."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from atoll.domain.errors import InvalidInput
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.services.daemon.tools import Tools
from atoll.surfaces.sidekick import tools_answers as answers
from atoll.surfaces.sidekick.tools_bodies import OverlayPart, ServerBody

Json = dict[str, Any]


class Furnishing:
    """Both as ComputeSDK's gateway has them."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def furnish(
        self, principal: Principal, sandbox: Sandbox, overlays: list[Json], servers: list[Json], base: str
    ) -> Json:
        """Servers wait for all of these overlays. InvalidInput for what cannot be, before anything of it is made."""
        parts = [_checked(OverlayPart, one, "overlays") for one in overlays]
        bodies = [_checked(ServerBody, one, "servers") for one in servers]
        made = [await self._tools.overlays.add(principal, sandbox.id, part.spec()) for part in parts]
        waited_for = [one.name for one in made]
        wanted = [(body.spec(), body.overlay_specs()) for body in bodies]
        await self._tools.servers.add(principal, sandbox.id, wanted, all_start=False, waiting_for=waited_for)
        shown, copied = await self.furniture(principal, sandbox.id, base)
        return {
            "overlays": [{name: one[name] for name in _OF_OVERLAYS} for one in copied],
            "servers": [{name: one[name] for name in _OF_SERVERS if name in one} for one in shown],
        }

    async def furniture(self, principal: Principal, sandbox_id: str, base: str) -> tuple[list[Json], list[Json]]:
        """(servers, overlays) of a sandbox."""
        overlays = [answers.overlay(one) for one in await self._tools.overlays.list(principal, sandbox_id)]
        servers: list[Json] = []
        for one in await self._tools.servers.list(principal, sandbox_id):
            port = one.fixture.state.get("port")
            shown = answers.server(one, self._tools.urls.at(sandbox_id, port, base) if port else None)
            servers.append({name: shown[name] for name in (*_OF_SERVERS, *_OF_HEALTH) if name in shown})
        return servers, [{name: one[name] for name in _OF_OVERLAYS} for one in overlays]


def _checked(model: type[Any], given: Json, field: str) -> Any:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{field}: {where}: {first['msg']}", field=field) from None


_OF_OVERLAYS = ("id", "source", "target", "copy_status")
_OF_SERVERS = ("slug", "port", "url", "status")
_OF_HEALTH = ("healthy", "health_check")
