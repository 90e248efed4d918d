"""Secrets over HTTP: names and what is said of them go out, values only come in."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput
from atoll.domain.principal import Principal
from atoll.domain.secret import Secret
from atoll.services.secrets import DESCRIPTION_CHARS_MAX, HOSTS_MAX, LISTED_MAX, Secrets, place
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.models import AnswerModel, BodyModel
from atoll.surfaces.operation import Answer, Operation, Parameter

SECRETS = "/api/secrets"
SECRET = SECRETS + "/{secret}"
GROUP = Parameter("group_id", "of this group, instead of one's own", max_chars=128)
AFTER = Parameter("after", "only secrets behind what the page before said is `next`", max_chars=192)
LIMIT = Parameter("limit", "at most so many", int, minimum=1, maximum=LISTED_MAX)
_Value = Annotated[SecretStr, Field(min_length=1, max_length=100_000, description="at most 64 KiB")]
_Encoding = Literal["utf8", "base64"]
_Hosts = Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=HOSTS_MAX)]
_Description = Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX)]


class SecretBody(BodyModel):
    """POST /api/secrets."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    value: _Value
    encoding: _Encoding | None = Field(None, description="how the value is written here; default: utf8")
    group_id: Annotated[str, Field(max_length=128)] | None = Field(None, description="whose it is; default: one's own")
    hosts: _Hosts | None = Field(None, description="that a brokered secret may be sent to; `*.example.org` too")
    description: _Description | None = None


class RotatedBody(BodyModel):
    """PUT /api/secrets/{secret}."""

    value: _Value
    encoding: _Encoding | None = None
    hosts: _Hosts | None = None
    description: _Description | None = None


class ChangedBody(BodyModel):
    """PATCH /api/secrets/{secret}: what is absent stays."""

    value: _Value | None = None
    encoding: _Encoding | None = None
    hosts: _Hosts | None = None
    description: _Description | None = None


class SecretAnswer(AnswerModel):
    """A secret, without its value."""

    id: str = Field(pattern=r"^sec_[0-9a-f]{24}$")
    name: str
    owner_id: str
    group_id: str | None
    version: int = Field(description="of the value: each rotation makes the next one")
    hosts: list[str]
    description: str
    created_at: datetime
    rotated_at: datetime | None


class SecretsAnswer(AnswerModel):
    secrets: list[SecretAnswer]
    next: str | None = Field(description="the `after` of the next page; null: this was the last one")


class SecretDeletedAnswer(AnswerModel):
    deleted: bool


class SecretHandlers:
    """One method for each operation."""

    def __init__(self, secrets: Secrets, settings: Settings) -> None:
        self._secrets = secrets
        self._body_bytes = settings.server.body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SecretBody, self._body_bytes)
        made = await self._secrets.create(
            principal,
            body.name,
            _bytes(body.value, body.encoding),
            group=body.group_id,
            hosts=body.hosts or (),
            description=body.description or "",
        )
        return json_response(_secret(made), 201)

    async def list(self, request: Request, principal: Principal) -> Response:
        limit = LIMIT.number(request) or LISTED_MAX
        found = await self._secrets.list(
            principal, group=GROUP.text(request), after=AFTER.text(request), limit=limit + 1
        )
        following = place(found[limit - 1]) if len(found) > limit else None
        return json_response({"secrets": [_secret(one) for one in found[:limit]], "next": following})

    async def get(self, request: Request, principal: Principal) -> Response:
        found = await self._secrets.get(principal, request.path_params["secret"], group=GROUP.text(request))
        return json_response(_secret(found))

    async def rotate(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, RotatedBody, self._body_bytes)
        return await self._change(request, principal, body)

    async def change(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, ChangedBody, self._body_bytes)
        return await self._change(request, principal, body)

    async def _change(self, request: Request, principal: Principal, body: RotatedBody | ChangedBody) -> Response:
        changed = await self._secrets.change(
            principal,
            request.path_params["secret"],
            group=GROUP.text(request),
            value=None if body.value is None else _bytes(body.value, body.encoding),
            hosts=body.hosts,
            description=body.description,
        )
        return json_response(_secret(changed))

    async def delete(self, request: Request, principal: Principal) -> Response:
        await self._secrets.delete(principal, request.path_params["secret"], group=GROUP.text(request))
        return json_response({"deleted": True})


def operations(secrets: Secrets, settings: Settings) -> list[Operation]:
    """The routes of secrets."""
    of = SecretHandlers(secrets, settings)
    tag, error = "secrets", ComputeError
    secret = Answer(200, "the secret, without its value", SecretAnswer)
    lost, body = (404, 503, 504), (400, 413)
    return [
        Operation(
            "POST", SECRETS, of.create, "createSecret", "Keep a secret",
            answers=(Answer(201, "the secret, without its value", SecretAnswer),),
            body=SecretBody, errors=(*body, 404, 409, 503, 504), tag=tag, error=error,
        ),
        Operation(
            "GET", SECRETS, of.list, "listSecrets", "Your secrets and your groups', by name, without their values",
            answers=(Answer(200, "the secrets", SecretsAnswer),),
            parameters=(GROUP, AFTER, LIMIT), errors=(400, *lost), tag=tag, error=error,
        ),
        Operation(
            "GET", SECRET, of.get, "getSecret", "Look at a secret, by id or name",
            answers=(secret,), parameters=(GROUP,), errors=(400, *lost), tag=tag, error=error,
        ),
        Operation(
            "PUT", SECRET, of.rotate, "rotateSecret", "Give a secret a new value; the old one is gone",
            answers=(secret,), parameters=(GROUP,), body=RotatedBody,
            errors=(*body, 409, *lost), tag=tag, error=error,
        ),
        Operation(
            "PATCH", SECRET, of.change, "changeSecret", "Change a secret's value, hosts or description",
            answers=(secret,), parameters=(GROUP,), body=ChangedBody,
            errors=(*body, 409, *lost), tag=tag, error=error,
        ),
        Operation(
            "DELETE", SECRET, of.delete, "deleteSecret", "Delete a secret with its value",
            answers=(Answer(200, "it is gone", SecretDeletedAnswer),),
            parameters=(GROUP,), errors=(400, 409, *lost), tag=tag, error=error,
        ),
    ]  # fmt: skip


def _bytes(value: SecretStr, encoding: str | None) -> bytes:
    text = value.get_secret_value()
    try:
        return base64.b64decode(text, validate=True) if encoding == "base64" else text.encode()
    except (binascii.Error, ValueError):
        raise InvalidInput(f"value is not valid {encoding or 'utf8'}", field="value") from None


def _secret(one: Secret) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "owner_id": one.owner,
        "group_id": one.owner if one.owner.startswith("grp_") else None,
        "version": one.revision,
        "hosts": list(one.hosts),
        "description": one.description,
        "created_at": one.created_at,
        "rotated_at": one.rotated_at,
    }
