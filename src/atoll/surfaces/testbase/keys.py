"""`/admin/keys`: the bodies and the handlers of the administration of keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.account import KeyStats
from atoll.domain.errors import InvalidInput
from atoll.domain.key import DEFAULT_SCOPES, ApiKey, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.rate import Rate
from atoll.services.key_admin import ADMIN_PREFIX, KeyAdmin, KeyChanges
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.models import BodyModel
from atoll.surfaces.operation import Parameter

PREFIX_CHARS = 8  # of a key's text that this API shows
WARNING = "⚠️ Store this key securely - it cannot be retrieved again!"
LIMIT = Parameter("limit", "at most so many, default 100", int, minimum=1, maximum=1_000)
OFFSET = Parameter("offset", "after so many", int, minimum=0, maximum=10**9)
INCLUDE_INACTIVE = Parameter("includeInactive", "revoked and expired ones too", bool)
SINCE = Parameter("since", "count only from this moment on: ISO 8601, UTC where it has no zone", max_chars=64)

Json = dict[str, Any]
Permissions = Annotated[list[Literal["execute", "read", "write", "admin"]], Field(min_length=1, max_length=4)]


class KeyRate(BodyModel):
    """A key's own rate, in place of that of the settings."""

    perSecond: Annotated[float, Field(gt=0, le=1_000_000)]
    burst: Annotated[int, Field(ge=1, le=1_000_000)]


class AdminKeyBody(BodyModel):
    """POST /admin/keys."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    description: Annotated[str, Field(max_length=1_024)] | None = None
    prefix: Annotated[str, Field(max_length=9)] = ADMIN_PREFIX
    keyType: Literal["standard", "internal"] = "standard"
    expiresIn: Annotated[float, Field(gt=0, le=3_650)] | None = Field(None, description="days; default: never")
    permissions: Permissions = Field(sorted(DEFAULT_SCOPES), description="`admin` is kept, and opens nothing")  # type: ignore[arg-type]
    metadata: dict[str, Any] | None = Field(None, description="at most 4,096 bytes as JSON")
    plan: Annotated[str, Field(max_length=32)] = Field("", description="whose quotas hold, such as free or pro")
    rate: KeyRate | None = None


class AdminKeyChangeBody(BodyModel):
    """PATCH /admin/keys/{key}: what is absent stays."""

    name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    description: Annotated[str, Field(max_length=1_024)] | None = None
    permissions: Permissions | None = None
    metadata: dict[str, Any] | None = None
    rate: KeyRate | None = None


class KeyAdminHandlers:
    """One method for each operation."""

    def __init__(self, admin: KeyAdmin, settings: Settings) -> None:
        self._admin = admin
        self._body_bytes = settings.server.body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        self._admin.require(principal)
        body = await read_model(request, AdminKeyBody, self._body_bytes)
        made = await self._admin.create(
            principal,
            body.name,
            kind=KeyKind(body.keyType),
            scopes=frozenset(map(Scope, body.permissions)),
            expires_in_days=body.expiresIn,
            prefix=body.prefix,
            plan=body.plan,
            description=body.description or "",
            metadata=body.metadata,
            rate=_rate(body.rate),
        )
        shown = _shown(made.key)
        names = (
            *("id", "keyPrefix", "keyType", "name", "description", "createdAt", "expiresAt", "permissions"),
            *("metadata", "plan", "rate"),
        )
        answer = {"key": made.text} | {name: shown[name] for name in names} | {"warning": WARNING}
        return json_response(answer, 201, {"cache-control": "no-store"})

    async def list(self, request: Request, principal: Principal) -> Response:
        self._admin.require(principal)
        limit, offset = LIMIT.number(request) or 100, OFFSET.number(request) or 0
        found, total = await self._admin.list(
            principal, limit=limit, offset=offset, include_inactive=INCLUDE_INACTIVE.flag(request)
        )
        return json_response({"keys": [_shown(key) for key in found], "total": total, "limit": limit, "offset": offset})

    async def get(self, request: Request, principal: Principal) -> Response:
        key = await self._admin.get(principal, request.path_params["key"])
        usage = await self._admin.usage(principal, key.id)
        return json_response(_shown(key) | {"usage": _stats(usage)})

    async def change(self, request: Request, principal: Principal) -> Response:
        self._admin.require(principal)
        body = await read_model(request, AdminKeyChangeBody, self._body_bytes)
        changes = KeyChanges(
            body.name,
            body.description,
            None if body.permissions is None else frozenset(map(Scope, body.permissions)),
            body.metadata,
            _rate(body.rate),
        )
        key = await self._admin.change(principal, request.path_params["key"], changes)
        shown = _shown(key)
        names = ("id", "keyPrefix", "name", "description", "permissions", "metadata", "rate")
        return json_response({name: shown[name] for name in names})

    async def revoke(self, request: Request, principal: Principal) -> Response:
        key_id = request.path_params["key"]
        await self._admin.revoke(principal, key_id)
        return json_response({"success": True, "message": "API key revoked successfully", "id": key_id})

    async def delete(self, request: Request, principal: Principal) -> Response:
        key_id = request.path_params["key"]
        await self._admin.delete(principal, key_id)
        return json_response({"success": True, "message": "API key deleted permanently", "id": key_id})

    async def usage(self, request: Request, principal: Principal) -> Response:
        self._admin.require(principal)
        key = await self._admin.get(principal, request.path_params["key"])
        stats = await self._admin.usage(principal, key.id, _moment(SINCE.text(request)))
        prefix = key.prefix[:PREFIX_CHARS]
        return json_response({"keyId": key.id, "keyPrefix": prefix, "name": key.name, "stats": _stats(stats)})


def _rate(given: KeyRate | None) -> Rate | None:
    return None if given is None else Rate(given.perSecond, given.burst)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput("since must be a moment such as 2026-01-31T12:00:00Z", field="since") from None


def _shown(key: ApiKey) -> Json:
    return {
        "id": key.id,
        "keyPrefix": key.prefix[:PREFIX_CHARS],
        "keyType": key.kind.value,
        "name": key.name,
        "description": key.description or None,
        "createdAt": key.created_at,
        "lastUsedAt": key.last_used_at,
        "expiresAt": key.expires_at,
        "isActive": key.usable(),
        "permissions": sorted(key.scopes),
        "metadata": dict(key.metadata) or None,
        "plan": key.plan,
        "rate": None if key.rate is None else {"perSecond": key.rate.per_s, "burst": key.rate.burst},
    }


def _stats(stats: KeyStats) -> Json:
    rate = 100 * stats.successful / stats.requests if stats.requests else 0
    return {
        "totalRequests": stats.requests,
        "successfulRequests": stats.successful,
        "failedRequests": stats.requests - stats.successful,
        "successRate": round(rate, 2),
        "lastUsed": stats.last_at,
    }
