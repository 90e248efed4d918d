"""Keys that a credential makes narrower than itself, as this dialect serves them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.key import ApiKey, Scope
from atoll.domain.principal import Principal
from atoll.services.identity.capabilities import RESOURCES_MAX, Capabilities
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.models import AnswerModel, BodyModel
from atoll.surfaces.operation import Answer, Operation

KEYS = "/api/keys"
KEY = KEYS + "/{key}"
ScopeName = Literal["execute", "read", "write", "admin"]


class MintBody(BodyModel):
    """POST /api/keys: what is left out is as the credential's that asks."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    scopes: Annotated[list[ScopeName], Field(min_length=1, max_length=4)] | None = None
    resources: (
        Annotated[list[Annotated[str, Field(max_length=128)]], Field(min_length=1, max_length=RESOURCES_MAX)] | None
    ) = Field(None, description="the only ids that it reaches: of sandboxes, workspaces, or groups with all they own")
    budget_micro_usd: Annotated[int, Field(ge=0, le=2**53)] | None = Field(None, description="what it may spend in all")
    expires_in_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] | None = Field(
        None, description="never later than the key that makes it"
    )
    description: Annotated[str, Field(max_length=1024)] = ""


class CapabilityAnswer(AnswerModel):
    """A key, without its text."""

    id: str
    name: str
    description: str
    prefix: str
    owner_id: str
    parent: str | None
    scopes: list[str]
    resources: list[str] | None
    budget_micro_usd: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class MintedAnswer(CapabilityAnswer):
    """A key with its text, which is shown this once."""

    key: str


class CapabilitiesAnswer(AnswerModel):
    keys: list[CapabilityAnswer]


class CapabilityHandlers:
    """One method for each operation."""

    def __init__(self, capabilities: Capabilities, settings: Settings) -> None:
        self._capabilities = capabilities
        self._body_bytes = settings.server.body_bytes

    async def mint(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, MintBody, self._body_bytes)
        made = await self._capabilities.mint(
            principal,
            body.name,
            scopes=None if body.scopes is None else [Scope(scope) for scope in body.scopes],
            resources=body.resources,
            budget_micro_usd=body.budget_micro_usd,
            expires_in_days=body.expires_in_days,
            description=body.description,
        )
        answer = json_response(_capability(made.key) | {"key": made.text}, 201)
        answer.headers["cache-control"] = "no-store"
        return answer

    async def list(self, _request: Request, principal: Principal) -> Response:
        return json_response({"keys": [_capability(one) for one in await self._capabilities.list(principal)]})

    async def get(self, request: Request, principal: Principal) -> Response:
        return json_response(_capability(await self._capabilities.get(principal, request.path_params["key"])))

    async def revoke(self, request: Request, principal: Principal) -> Response:
        return json_response(_capability(await self._capabilities.revoke(principal, request.path_params["key"])))


def operations(capabilities: Capabilities, settings: Settings) -> list[Operation]:
    """What is served of them."""
    of = CapabilityHandlers(capabilities, settings)
    tag, error, lost = "keys", ComputeError, (403, 404, 503)
    key = Answer(200, "the key", CapabilityAnswer)
    return [
        Operation(
            "POST", KEYS, of.mint, "mintKey", "Make a key that may do less than you, to give away",
            answers=(Answer(201, "the key with its text, this once", MintedAnswer),), body=MintBody,
            errors=(400, 403, 413, 429, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", KEYS, of.list, "listMintedKeys", "The keys that your credential made, oldest first",
            answers=(Answer(200, "the keys", CapabilitiesAnswer),), errors=(403, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", KEY, of.get, "getMintedKey", "Look at a key that you made",
            answers=(key,), errors=lost, tag=tag, error=error,
        ),
        Operation(
            "DELETE", KEY, of.revoke, "revokeMintedKey", "End a key that you made, and all that it made",
            answers=(key,), errors=(409, *lost), tag=tag, error=error,
        ),
    ]  # fmt: skip


def _capability(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "description": key.description,
        "prefix": key.prefix,
        "owner_id": key.owner,
        "parent": key.parent,
        "scopes": sorted(key.scopes),
        "resources": None if key.resources is None else sorted(key.resources),
        "budget_micro_usd": key.budget_micro_usd,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }
