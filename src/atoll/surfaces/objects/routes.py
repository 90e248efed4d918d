"""Access keys over HTTP: what a client makes with its API key before it goes to the object-store door."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.access_key import AccessKey
from atoll.domain.principal import Principal
from atoll.services.objects.access_keys import AccessKeys
from atoll.surfaces.bodies import json_response
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import Answer, Operation

KEYS = "/api/access-keys"
KEY = KEYS + "/{access}"


class AccessKeyAnswer(AnswerModel):
    """An access key, without its secret."""

    id: str
    key_id: str = Field(description="the API key that it signs for, and ends with")
    created_at: datetime


class NewAccessKeyAnswer(AccessKeyAnswer):
    """An access key with its secret, which is shown this once."""

    secret: str


class AccessKeysAnswer(AnswerModel):
    access_keys: list[AccessKeyAnswer]


class AccessKeyHandlers:
    """One method for each operation."""

    def __init__(self, keys: AccessKeys) -> None:
        self._keys = keys

    async def create(self, _request: Request, principal: Principal) -> Response:
        made = await self._keys.create(principal)
        answer = json_response(_shown(made.access) | {"secret": made.secret}, 201)
        answer.headers["cache-control"] = "no-store"
        return answer

    async def list(self, _request: Request, principal: Principal) -> Response:
        return json_response({"access_keys": [_shown(one) for one in await self._keys.list(principal)]})

    async def revoke(self, request: Request, principal: Principal) -> Response:
        return json_response(_shown(await self._keys.revoke(principal, request.path_params["access"])))


def operations(keys: AccessKeys) -> list[Operation]:
    """What is served of them."""
    of = AccessKeyHandlers(keys)
    tag, error = "objects", ComputeError
    return [
        Operation(
            "POST", KEYS, of.create, "createAccessKey", "Make a pair that signs at the object-store door",
            answers=(Answer(201, "the access key with its secret, this once", NewAccessKeyAnswer),),
            errors=(400, 429, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", KEYS, of.list, "listAccessKeys", "The access keys of your API key, oldest first",
            answers=(Answer(200, "the access keys", AccessKeysAnswer),), errors=(503,), tag=tag, error=error,
        ),
        Operation(
            "DELETE", KEY, of.revoke, "revokeAccessKey", "End an access key",
            answers=(Answer(200, "the access key", AccessKeyAnswer),), errors=(404, 503), tag=tag, error=error,
        ),
    ]  # fmt: skip


def _shown(access: AccessKey) -> dict[str, Any]:
    return {"id": access.id, "key_id": access.key, "created_at": access.created_at}
