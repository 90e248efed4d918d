"""`/billing/admin`: credits, limits, refunds and everybody's usage, for who administers the server."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput
from atoll.domain.idempotency import KEY_CHARS_MAX, is_key, key_hash
from atoll.domain.principal import Principal
from atoll.services.billing import Billing
from atoll.services.billing_admin import DESCRIPTION_CHARS_MAX, KEEP, BillingAdmin, LimitChange
from atoll.settings import Settings
from atoll.surfaces.bodies import read_model
from atoll.surfaces.models import BodyModel
from atoll.surfaces.money import JsonAmount, OptionalAmount, amount_of, money_response
from atoll.surfaces.once import HEADER
from atoll.surfaces.operation import Parameter
from atoll.surfaces.testbase.billing import OWN_BY, cost_query, page_of, told_costs, window_of
from atoll.surfaces.testbase.billing_rows import shown_account, shown_stats

AMOUNT = "Amount is required and must be a number"  # the protocol's words
ALL_BY = Parameter("by", "what costs are told apart by; default: task", choices=(*OWN_BY, "account"))
INTERNAL = Parameter("internal", "true: only what nobody is charged for; false: only what is; default: both", bool)
OF = Parameter("account", "only what this key's, user's or group's account paid", max_chars=128)


class CreditsBody(BodyModel):
    """POST /billing/admin/{key}/credits, and /refund."""

    amount: JsonAmount = None
    description: Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX)] | None = None


class SpendingLimitsBody(BodyModel):
    """POST /billing/admin/{key}/limits: what is absent stays, null takes a limit away."""

    dailyLimit: OptionalAmount = None
    monthlyLimit: OptionalAmount = None


class BillingAdminHandlers:
    """One method for each operation."""

    def __init__(self, admin: BillingAdmin, billing: Billing, settings: Settings) -> None:
        self._admin = admin
        self._billing = billing
        self._body_bytes = settings.server.body_bytes

    async def credits(self, request: Request, principal: Principal) -> Response:
        self._admin.require(principal)
        amount, description = await self._amount(request)
        named, account = await self._admin.credit(
            principal, _key(request), amount, description=description, key=_once(request, principal)
        )
        return money_response({"success": True, "account": shown_account(account, named.subject)})

    async def refund(self, request: Request, principal: Principal) -> Response:
        self._admin.require(principal)
        amount, description = await self._amount(request)
        named, account = await self._admin.refund(
            principal, _key(request), amount, description=description, key=_once(request, principal)
        )
        return money_response({"success": True, "account": shown_account(account, named.subject)})

    async def limits(self, request: Request, principal: Principal) -> Response:
        self._admin.require(principal)
        body = await read_model(request, SpendingLimitsBody, self._body_bytes)
        daily, monthly = _limit(body, "dailyLimit"), _limit(body, "monthlyLimit")
        named, account = await self._admin.set_limits(principal, _key(request), daily=daily, monthly=monthly)
        return money_response({"success": True, "account": shown_account(account, named.subject)})

    async def account(self, request: Request, principal: Principal) -> Response:
        named, account = await self._admin.account(principal, _key(request))
        return money_response(shown_account(account, named.subject))

    async def stats(self, request: Request, principal: Principal) -> Response:
        self._admin.require(principal)
        return money_response(shown_stats(await self._admin.stats(principal, _key(request), window_of(request))))

    async def usage(self, request: Request, principal: Principal) -> Response:
        self._admin.require(principal)
        query = cost_query(request, ALL_BY)
        internal = None if INTERNAL.text(request) is None else INTERNAL.flag(request)
        found = await self._admin.costs(
            principal, OF.text(request), query, window_of(request), page_of(request), internal=internal
        )
        return await told_costs(request, query, found)

    async def _amount(self, request: Request) -> tuple[int, str]:
        body = await read_model(request, CreditsBody, self._body_bytes)
        amount = amount_of(body.amount, field="amount")
        if not amount:
            raise InvalidInput(AMOUNT)
        return amount, body.description or ""


def _key(request: Request) -> str:
    return request.path_params["key"]


def _once(request: Request, principal: Principal) -> str | None:
    """What the ledger knows an `Idempotency-Key` by: no second transfer, however long after the first."""
    text = request.headers.get(HEADER)
    if text is None:
        return None
    if not is_key(text):
        raise InvalidInput(f"Idempotency-Key must be 1 to {KEY_CHARS_MAX} printable characters", field=HEADER)
    return key_hash(principal.credential, text)


def _limit(body: SpendingLimitsBody, name: str) -> LimitChange:
    if name not in body.model_fields_set:
        return KEEP
    value: Any = getattr(body, name)
    if value is None:
        return None
    limit = amount_of(value, field=name)
    if limit is None:
        raise InvalidInput(f"{name} must be a number")
    return limit
