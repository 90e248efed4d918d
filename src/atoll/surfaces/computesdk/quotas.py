"""Quotas, as this dialect serves them: one's own for everybody, anybody's for administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.domain.quota import QuotaUse
from atoll.services.quota_overrides import QuotaOverrides, QuotaStanding
from atoll.services.quotas import Quotas, is_hourly
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.models import AnswerModel, BodyModel
from atoll.surfaces.operation import Answer, Operation

QUOTAS = "/api/quotas"
QUOTA = QUOTAS + "/{subject}"
WINDOW_S = 3600
QUOTAS_MAX = 64


class QuotasBody(BodyModel):
    """PUT /api/quotas/{subject}: all of its overrides."""

    quotas: dict[str, int | None] = Field(
        max_length=QUOTAS_MAX, description="by name; null: no bound; what is not named is as the plan says"
    )


class QuotaAnswer(AnswerModel):
    """One quota, and what is used of it."""

    name: str
    limit: int | None = Field(description="null: no bound")
    used: int
    remaining: int | None
    window_s: int | None = Field(description="of what is counted over the last hour; it rolls")
    resets_at: datetime | None = Field(description="of what is counted by the day; null for what rolls")


class StandingAnswer(AnswerModel):
    """What a user, a group or a key may use, and uses."""

    id: str
    plan: str = Field(description="whose amounts hold where no override does; empty: a key's without a plan")
    quotas: list[QuotaAnswer]
    overrides: dict[str, int | None]


class QuotasAnswer(AnswerModel):
    """One's own, and those of one's key and groups."""

    quotas: list[StandingAnswer]


class QuotaHandlers:
    """One method for each operation."""

    def __init__(self, quotas: Quotas, overrides: QuotaOverrides, settings: Settings) -> None:
        self._quotas = quotas
        self._overrides = overrides
        self._body_bytes = settings.server.body_bytes

    async def mine(self, _request: Request, principal: Principal) -> Response:
        found = await self._overrides.mine(principal)
        return json_response({"quotas": [self._shown(one) for one in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        return json_response(self._shown(await self._overrides.get(principal, request.path_params["subject"])))

    async def put(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, QuotasBody, self._body_bytes)
        done = await self._overrides.put(principal, request.path_params["subject"], body.quotas)
        return json_response(self._shown(done))

    async def clear(self, request: Request, principal: Principal) -> Response:
        return json_response(self._shown(await self._overrides.clear(principal, request.path_params["subject"])))

    def _shown(self, standing: QuotaStanding) -> dict[str, Any]:
        return {
            "id": standing.subject,
            "plan": standing.plan,
            "quotas": [self._use(use) for use in standing.uses],
            "overrides": {name.value: amount for name, amount in standing.overrides.items()},
        }

    def _use(self, use: QuotaUse) -> dict[str, Any]:
        return {
            "name": use.name.value,
            "limit": use.limit,
            "used": use.used,
            "remaining": use.remaining,
            "window_s": WINDOW_S if is_hourly(use.name) else None,
            "resets_at": self._quotas.resets_at(use.name),
        }


def operations(quotas: Quotas, overrides: QuotaOverrides, settings: Settings) -> list[Operation]:
    """What this dialect serves of quotas."""
    of = QuotaHandlers(quotas, overrides, settings)
    tag, error, lost = "quotas", ComputeError, (403, 404, 503)
    standing = Answer(200, "what it may use, and uses", StandingAnswer)
    return [
        Operation(
            "GET", QUOTAS, of.mine, "listQuotas", "What you may use, and what you use of it",
            answers=(Answer(200, "your quotas, then those of your groups", QuotasAnswer),),
            errors=(503,), tag=tag, error=error,
        ),
        Operation(
            "GET", QUOTA, of.get, "getQuotas", "The quotas of a user, a group or a key; for administrators",
            answers=(standing,), errors=lost, tag=tag, error=error,
        ),
        Operation(
            "PUT", QUOTA, of.put, "setQuotas", "Set all overrides of a user, a group or a key; for administrators",
            answers=(standing,), body=QuotasBody, errors=(400, 413, *lost), tag=tag, error=error,
        ),
        Operation(
            "DELETE", QUOTA, of.clear, "clearQuotas", "Back to what the plan says; for administrators",
            answers=(standing,), errors=lost, tag=tag, error=error,
        ),
    ]  # fmt: skip
