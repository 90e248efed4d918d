"""The handlers of the account: what one has, uses and may have, one's keys; and of strangers who ask for one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.services.account_keys import AccountKeys, KeyWishes
from atoll.services.accounts import Accounts, tier_of
from atoll.services.signup import TIER, Signup
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.execbox import account_answers as answers
from atoll.surfaces.execbox.account_requests import (
    DAYS,
    EXPORT_DAYS,
    FORMAT,
    AccountKeyBody,
    AccountKeyChangeBody,
    AccountLimitsBody,
    QuotaRequestBody,
    WaitlistBody,
)

HISTORY_DAYS, EXPORTED_DAYS = 7, 30
SHOWN_ONCE = {"cache-control": "no-store"}


class AccountHandlers:
    """One method for each operation."""

    def __init__(self, accounts: Accounts, keys: AccountKeys, settings: Settings) -> None:
        self._accounts = accounts
        self._keys = keys
        self._body_bytes = settings.server.body_bytes

    async def get(self, _request: Request, principal: Principal) -> Response:
        return json_response(answers.account(await self._accounts.describe(principal)))

    async def usage(self, _request: Request, principal: Principal) -> Response:
        return json_response(answers.usage(tier_of(principal), await self._accounts.usage(principal)))

    async def enhanced(self, request: Request, principal: Principal) -> Response:
        days = DAYS.number(request) or HISTORY_DAYS
        used = answers.usage(tier_of(principal), await self._accounts.usage(principal))
        history = await self._accounts.history(principal, days)
        limits = await self._accounts.limits(principal)
        return json_response(answers.enhanced(principal.id, used, history, limits))

    async def export(self, request: Request, principal: Principal) -> Response:
        days, form = EXPORT_DAYS.number(request) or EXPORTED_DAYS, FORMAT.text(request)
        history = await self._accounts.history(principal, days)
        if form == "csv":
            headers = {"content-disposition": 'attachment; filename="usage.csv"'}
            return Response(answers.days_csv(history.days), 200, headers, "text/csv")
        return json_response(answers.days(history.days))

    async def limits(self, _request: Request, principal: Principal) -> Response:
        own = await self._accounts.limits(principal)
        return json_response(answers.limits(own, await self._accounts.usage(principal)))

    async def set_limits(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, AccountLimitsBody, self._body_bytes)
        own = await self._accounts.set_limits(principal, body.given())
        return json_response(answers.limits(own, await self._accounts.usage(principal)))

    async def list_keys(self, _request: Request, principal: Principal) -> Response:
        return json_response({"keys": [answers.key(one) for one in await self._keys.list(principal)]})

    async def create_key(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, AccountKeyBody, self._body_bytes)
        made, key = await self._keys.create(principal, body.name, KeyWishes(body.given()))
        return json_response(answers.key(key) | {"key": made.text}, 201, SHOWN_ONCE)

    async def get_key(self, request: Request, principal: Principal) -> Response:
        return json_response(answers.key(await self._keys.get(principal, request.path_params["key"])))

    async def change_key(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, AccountKeyChangeBody, self._body_bytes)
        changed = await self._keys.change(principal, request.path_params["key"], KeyWishes(body.given()))
        return json_response(answers.key(changed))

    async def delete_key(self, request: Request, principal: Principal) -> Response:
        await self._keys.end(principal, request.path_params["key"])
        return Response(status_code=204)

    async def rotate_key(self, request: Request, principal: Principal) -> Response:
        made, key = await self._keys.rotate(principal, request.path_params["key"])
        return json_response(answers.key(key) | {"key": made.text}, 200, SHOWN_ONCE)


class SignupHandlers:
    """One method for each operation; nobody has a credential here."""

    def __init__(self, signup: Signup, settings: Settings) -> None:
        self._signup = signup
        self._body_bytes = settings.server.body_bytes

    async def join(self, request: Request) -> Response:
        body = await read_model(request, WaitlistBody, self._body_bytes)
        made = await self._signup.join(body.email, body.name)
        message = "keep this key: it cannot be shown again"
        return json_response({"id": made.key.id, "key": made.text, "tier": TIER, "message": message}, 201, SHOWN_ONCE)

    async def ask(self, request: Request) -> Response:
        body = await read_model(request, QuotaRequestBody, self._body_bytes)
        detail = {name: value for name, value in body.given().items() if name != "email" and value is not None}
        kept = await self._signup.ask(body.email, detail)
        message = "the operator of this server reads it"
        answer = {"id": kept.id, "status": kept.status, "message": message, "created_at": kept.created_at}
        return json_response(answer, 201)
