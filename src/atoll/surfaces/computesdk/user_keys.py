"""A user's own API keys, as this dialect serves them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.key import ApiKey, Scope
from atoll.domain.principal import Principal
from atoll.services.identity.parts import UserParts
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.models import AnswerModel, BodyModel
from atoll.surfaces.operation import Answer, Operation

KEYS = "/auth/api-keys"
KEY = KEYS + "/{key}"


class NewKeyBody(BodyModel):
    """POST /auth/api-keys."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    scopes: Annotated[list[Literal["execute", "read", "write", "admin"]], Field(min_length=1)] | None = Field(
        None, description="default: your own"
    )
    expires_in_days: Annotated[float, Field(gt=0, le=3650)] | None = Field(None, description="default: never")
    description: Annotated[str, Field(max_length=1024)] = ""


class UserKeyAnswer(AnswerModel):
    """A key, but not its text."""

    id: str = Field(pattern=r"^key_[0-9a-f]{12}$")
    name: str
    description: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewUserKeyAnswer(UserKeyAnswer):
    key: str = Field(description="its text: shown now, and never again")


class UserKeysAnswer(AnswerModel):
    api_keys: list[UserKeyAnswer]


class UserKeyRevokedAnswer(AnswerModel):
    revoked: bool


class UserKeyHandlers:
    """One method for each operation."""

    def __init__(self, parts: UserParts, settings: Settings) -> None:
        self._keys = parts.own_keys
        self._body_bytes = settings.server.body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, NewKeyBody, self._body_bytes)
        made = await self._keys.create(
            principal,
            body.name,
            scopes=None if body.scopes is None else frozenset(map(Scope, body.scopes)),
            expires_in_days=body.expires_in_days,
            description=body.description,
        )
        answer = json_response(_shown(made.key) | {"key": made.text}, 201)
        answer.headers["cache-control"] = "no-store"
        return answer

    async def list(self, _request: Request, principal: Principal) -> Response:
        return json_response({"api_keys": [_shown(key) for key in await self._keys.list(principal)]})

    async def get(self, request: Request, principal: Principal) -> Response:
        return json_response(_shown(await self._keys.get(principal, request.path_params["key"])))

    async def revoke(self, request: Request, principal: Principal) -> Response:
        await self._keys.revoke(principal, request.path_params["key"])
        return json_response({"revoked": True})


def operations(parts: UserParts, settings: Settings) -> list[Operation]:
    """What this dialect serves of a user's own keys."""
    of = UserKeyHandlers(parts, settings)
    tag, error = "users", ComputeError
    return [
        Operation(
            "POST", KEYS, of.create, "createApiKey", "Make an API key of your own",
            answers=(Answer(201, "the key", NewUserKeyAnswer),), body=NewKeyBody,
            errors=(400, 403, 413, 429, 503, 504), tag=tag, error=error,
        ),
        Operation(
            "GET", KEYS, of.list, "listApiKeys", "Your API keys, oldest first",
            answers=(Answer(200, "the keys", UserKeysAnswer),), errors=(403, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", KEY, of.get, "getApiKey", "Look at an API key of yours",
            answers=(Answer(200, "the key", UserKeyAnswer),), errors=(403, 404, 503), tag=tag, error=error,
        ),
        Operation(
            "DELETE", KEY, of.revoke, "revokeApiKey", "End an API key of yours",
            answers=(Answer(200, "it opens nothing any more", UserKeyRevokedAnswer),),
            errors=(403, 404, 409, 503, 504), tag=tag, error=error,
        ),
    ]  # fmt: skip


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "description": key.description,
        "prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }
