"""`/billing/admin`: credits, refunds and limits, by administrators alone, exactly once for each Idempotency-Key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from atoll.domain.ids import new_id
from atoll.domain.key import KeyKind
from atoll.domain.ledger import Use, UseKind
from atoll.domain.price import Cost
from atoll.surfaces.testbase import billing_answers as answers
from tests.surfaces.testbase.conftest import ADMIN, Office, OpenOffice
from tests.surfaces.testbase.test_admin_keys import NO_KEY, NOT_FOUND, UNSET, WRONG

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AMOUNT = {"error": "Bad Request", "message": "Amount is required and must be a number"}


async def balance(office: Office, key: str) -> float:
    return (await office.call("GET", "/billing/account", key)).json()["creditsBalance"]


async def test_credits_are_added_and_the_account_is_told(office: Office) -> None:
    made = await office.make()
    body = {"amount": 100, "description": "Credit purchase - $100"}
    given = await office.call("POST", f"/billing/admin/{made['id']}/credits", json=body)
    answers.AccountChangedAnswer.model_validate(given.json())
    assert given.json()["success"] is True
    assert given.json()["account"]["creditsBalance"] == 100
    assert given.json()["account"]["apiKeyId"] == made["id"]
    with_header = await office.call(
        "POST", f"/billing/admin/{made['id']}/credits", None, json={"amount": 0.5}, headers={"x-admin-key": ADMIN}
    )
    assert with_header.json()["account"]["creditsBalance"] == 100.5


@pytest.mark.parametrize(
    "body", ['{"amount":0}', "{}", '{"amount":"10"}', '{"amount":null}', '{"amount":true}', '{"amount":NaN}',
             '{"amount":[1]}', '{"amount":0.0}'],
)  # fmt: skip
async def test_b05_what_is_no_amount_gets_the_protocols_answer(office: Office, body: str) -> None:
    made = await office.make()
    answer = await office.call("POST", f"/billing/admin/{made['id']}/credits", content=body)
    assert (answer.status_code, answer.json()) == (400, AMOUNT)


@pytest.mark.parametrize("amount", ["1e30", "0.1234567", "-1e30", "1e400", "0.30000000000000004", "1" + "0" * 60])
async def test_b05_an_amount_that_no_account_holds_is_refused_by_name(office: Office, amount: str) -> None:
    made = await office.make()
    answer = await office.call("POST", f"/billing/admin/{made['id']}/credits", content=f'{{"amount":{amount}}}')
    assert (answer.status_code, answer.json()["error"]) == (400, "Bad Request")
    assert [one["field"] for one in answer.json()["errors"]] == ["amount"]
    assert await balance(office, made["key"]) == 0


async def test_no_more_is_taken_back_than_there_is(office: Office) -> None:
    made = await office.make()
    path = f"/billing/admin/{made['id']}/credits"
    await office.call("POST", path, json={"amount": 5})
    taken = await office.call("POST", path, json={"amount": -5.000001})
    assert (taken.status_code, taken.json()["error"]) == (402, "Insufficient Credits")
    assert taken.json()["details"] == {"currentBalance": 5, "totalSpent": 0}
    assert (await office.call("POST", path, json={"amount": -5})).json()["account"]["creditsBalance"] == 0


def used(account: str, dollars: float) -> Use:
    return Use(new_id("use"), account, UseKind.MODEL, NOW, Cost(int(dollars * 1_000_000)))


async def charged(office: Office, account: str, dollars: float) -> None:
    """It got so much, and spent it."""
    await office.call("POST", f"/billing/admin/{account}/credits", json={"amount": dollars})
    await office.house.records.add_use(used(account, dollars), NOW)


async def test_a_refund_gives_back_and_takes_nothing(office: Office) -> None:
    made = await office.make()
    path = f"/billing/admin/{made['id']}/refund"
    await charged(office, made["id"], 0.5)
    assert (await office.call("POST", path, json={"amount": 0.25})).json()["account"]["creditsBalance"] == 0.25
    for amount in (-1, 0.250001):
        answer = await office.call("POST", path, json={"amount": amount})
        assert (answer.status_code, [one["field"] for one in answer.json()["errors"]]) == (400, ["amount"])
    assert "at most 0.25 dollars" in answer.json()["message"]


async def test_limits_are_set_left_and_removed(office: Office) -> None:
    made = await office.make()
    path = f"/billing/admin/{made['id']}/limits"

    async def after(body: dict[str, Any]) -> tuple[float | None, float | None]:
        answer = await office.call("POST", path, json=body)
        assert answer.status_code == 200, answer.text
        account = answer.json()["account"]
        return account["dailyLimit"], account["monthlyLimit"]

    assert await after({"dailyLimit": 10, "monthlyLimit": 300}) == (10, 300)
    assert await after({"dailyLimit": 2.5}) == (2.5, 300)
    assert await after({"monthlyLimit": None}) == (2.5, None)
    assert await after({}) == (2.5, None)
    for body in ({"dailyLimit": "10"}, {"dailyLimit": -1}, {"monthlyLimit": 1e30}, {"weeklyLimit": 1}):
        answer = await office.call("POST", path, json=body)
        assert answer.status_code == 400 and "Limit" in answer.json()["message"] + str(answer.json()), body


async def test_b03_credits_with_one_idempotency_key_are_given_once(office: Office) -> None:
    made = await office.make()
    path, headers = f"/billing/admin/{made['id']}/credits", {"idempotency-key": "invoice-7"}
    for replayed in (None, "true"):
        answer = await office.call("POST", path, json={"amount": 10}, headers=headers)
        assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (200, replayed)
        assert answer.json()["account"]["creditsBalance"] == 10
    other = await office.call("POST", path, json={"amount": 11}, headers=headers)
    assert other.status_code == 422
    assert await balance(office, made["key"]) == 10


async def test_b03_the_ledger_knows_the_key_when_the_answer_is_forgotten(office: Office) -> None:
    made = await office.make()
    path, headers = f"/billing/admin/{made['id']}/credits", {"idempotency-key": "invoice-8"}
    await office.call("POST", path, json={"amount": 10}, headers=headers)
    office.house.records._idempotent.clear()  # type: ignore[attr-defined]  # as after a day
    again = await office.call("POST", path, json={"amount": 10}, headers=headers)
    assert (again.status_code, again.json()["account"]["creditsBalance"]) == (200, 10)
    office.house.records._idempotent.clear()  # type: ignore[attr-defined]
    assert (await office.call("POST", path, json={"amount": 11}, headers=headers)).status_code == 409
    assert await balance(office, made["key"]) == 10


CALLS = [
    ("POST", "/credits", {"amount": 1}),
    ("POST", "/refund", {"amount": 1}),
    ("POST", "/limits", {"dailyLimit": 1}),
    ("GET", "/stats", None),
    ("GET", "/account", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_only_administrators_get_in(office: Office, method: str, path: str, body: Any) -> None:
    made = await office.make(permissions=["execute", "read", "write", "admin"])
    where = f"/billing/admin/{made['id']}{path}"
    await charged(office, made["id"], 1)
    for key, answer in ((None, (401, NO_KEY)), ("sk_unknown", (403, WRONG)), (made["key"], (403, WRONG))):
        got = await office.call(method, where, key, json=body)
        assert (got.status_code, got.json()) == answer
    owner = await office.keys.create("owner", kind=KeyKind.OWNER)
    assert (await office.call(method, where, owner.text, json=body)).status_code == 200


async def test_without_an_admin_key_nobody_but_an_administrator_gets_in(open_office: OpenOffice) -> None:
    async with open_office(admin={}) as office:
        made = await office.keys.create("somebody")
        path = f"/billing/admin/{made.key.id}/credits"
        refused = await office.call("POST", path, made.text, json={"amount": 1})
        assert (refused.status_code, refused.json()) == (503, UNSET)
        owner = await office.keys.create("owner", kind=KeyKind.OWNER)
        assert (await office.call("POST", path, owner.text, json={"amount": 1})).status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
@pytest.mark.parametrize("unknown", ["key_0123456789ab", "user_0123456789ab", "grp_0123456789ab", "x", "issued"])
async def test_an_unknown_account_is_not_found_and_not_made(
    office: Office, method: str, path: str, body: Any, unknown: str
) -> None:
    answer = await office.call(method, f"/billing/admin/{unknown}{path}", json=body)
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    known = await office.house.records.all_billing_accounts()
    assert unknown not in {one.id for one in known if one.balance == 0 and not one.spent} - {"issued", "earned"}


async def test_the_account_of_a_key_is_its_owners(office: Office) -> None:
    owner = await office.make()
    second = await office.keys.create("second", owner=owner["id"])
    given = await office.call("POST", f"/billing/admin/{second.key.id}/credits", json={"amount": 3})
    assert (given.json()["account"]["id"], given.json()["account"]["apiKeyId"]) == (owner["id"], second.key.id)
    assert await balance(office, owner["key"]) == 3


async def test_each_change_leaves_an_event_in_the_accounts_tenant(office: Office) -> None:
    made = await office.make()
    base = f"/billing/admin/{made['id']}"
    await office.call("POST", base + "/credits", json={"amount": 2})
    await office.call("POST", base + "/credits", json={"amount": -1})
    await office.house.records.add_use(used(made["id"], 1), NOW)
    await office.call("POST", base + "/refund", json={"amount": 1})
    await office.call("POST", base + "/limits", json={"dailyLimit": 1})
    events = await office.house.records.list_events(tenant=made["id"], limit=100)
    actions = [one.action for one in events if one.action.startswith("billing.")]
    assert sorted(actions) == ["billing.credited", "billing.debited", "billing.limited", "billing.refunded"]
