"""`/v1/account`: one's plan, use, limits and keys; a key made here is no wider than the one that made it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain.key import KeyKind
from atoll.domain.rate import Rate
from atoll.surfaces.execbox import account_answers as answers

ACCOUNT, KEYS = "/v1/account", "/v1/account/keys"


async def account_key(office: Any, plan: str = "free", **body: Any) -> str:
    return (await office.make(plan=plan, **body))["key"]


async def made(office: Any, key: str, **body: Any) -> dict[str, Any]:
    answer = await office.call("POST", KEYS, key, json={"name": "another"} | body)
    assert answer.status_code == 201, answer.text
    return answers.AccountNewKeyAnswer.model_validate(answer.json()) and answer.json()


async def test_an_account_says_its_tier_and_its_key(office: Any) -> None:
    key = await account_key(office, "starter")
    found = (await office.call("GET", ACCOUNT, key)).json()
    answers.AccountAnswer.model_validate(found)
    assert found["tier"] == "starter" and found["api_key_preview"] == key[:7] + "..."
    assert found["api_key_id"].startswith("key_")
    assert (await office.call("GET", ACCOUNT)).json() == {"tier": "unlimited"}  # the administrator's


async def test_what_is_used_of_the_tiers_amounts(office: Any) -> None:
    key = await account_key(office)
    await office.house.create(key, resources={"memoryMB": 256})
    used = (await office.call("GET", ACCOUNT + "/usage", key)).json()
    assert used == {
        "sessions_today": 1,
        "active_sessions": 1,
        "quota_used": 1,
        "quota_remaining": 9,
        "tier": "free",
        "concurrent_limit": 5,
        "daily_limit": 10,
        "max_duration_seconds": 60,
        "max_memory_mb": 512,
    }
    unlimited = (await office.call("GET", ACCOUNT + "/usage", await account_key(office, "enterprise"))).json()
    assert (unlimited["quota_remaining"], unlimited["daily_limit"], unlimited["concurrent_limit"]) == (-1, -1, -1)


async def test_what_was_used_by_the_hour_and_by_the_day_and_what_it_would_cost(office: Any) -> None:
    key = await account_key(office)
    session = await office.house.create(key, resources={"memoryMB": 256})
    await office.call("DELETE", f"/v1/sessions/{session['id']}", key)
    found = (await office.call("GET", ACCOUNT + "/usage/enhanced?days=3", key)).json()
    answers.EnhancedUsageAnswer.model_validate(found)
    assert len(found["hourly_usage"]) == 24 and len(found["daily_history"]) == 3
    today = found["daily_history"][-1]
    assert (today["executions"], today["errors"]) == (1, 0)
    assert today["date"] == datetime.now(UTC).date().isoformat()
    assert found["cost_estimate_cents"] == today["cost_cents"] >= 1
    assert found["hourly_usage"][-1]["executions"] + found["hourly_usage"][-2]["executions"] == 1
    assert found["alert_threshold"] == 80


async def test_the_days_come_as_json_and_as_a_table(office: Any) -> None:
    key = await account_key(office)
    listed = await office.call("GET", ACCOUNT + "/usage/export?days=2", key)
    assert [list(day) for day in listed.json()] == [["date", "executions", "duration_ms", "cost_cents", "errors"]] * 2
    table = await office.call("GET", ACCOUNT + "/usage/export?days=2&format=csv", key)
    assert table.headers["content-type"].startswith("text/csv")
    assert table.text.splitlines()[0] == "date,executions,duration_ms,cost_cents,errors"
    assert (await office.call("GET", ACCOUNT + "/usage/export?format=xml", key)).status_code == 400
    assert (await office.call("GET", ACCOUNT + "/usage/export?days=0", key)).status_code == 400


async def test_limits_of_ones_own_hold_below_those_of_the_plan_and_never_above(office: Any) -> None:
    key = await account_key(office)
    before = (await office.call("GET", ACCOUNT + "/limits", key)).json()
    answers.AccountLimitsAnswer.model_validate(before)
    assert (before["daily_requests_limit"], before["concurrent_requests_limit"]) == (10, 5)
    body = {"concurrent_requests_limit": 1, "billing_email": "me@example.com", "timezone": "Europe/Berlin"}
    after = (await office.call("PUT", ACCOUNT + "/limits", key, json=body)).json()
    assert body.items() <= after.items()
    await office.house.create(key, resources={"memoryMB": 256})
    refused = await office.call(
        "POST", "/v1/sessions", key, json={"image": "host", "network": "none", "resources": {"memoryMB": 256}}
    )
    assert (refused.status_code, refused.json()["code"]) == (429, "QUOTA_EXCEEDED")
    wide = (await office.call("PUT", ACCOUNT + "/limits", key, json={"concurrent_requests_limit": 1000})).json()
    assert wide["concurrent_requests_limit"] == 5
    reset = {"concurrent_requests_limit": None, "billing_email": None, "monthly_cost_limit_cents": 0}
    found = (await office.call("PUT", ACCOUNT + "/limits", key, json=reset)).json()
    assert found["concurrent_requests_limit"] == 5 and "billing_email" not in found
    assert found["monthly_cost_limit_cents"] == 0
    actions = [event.action for event in await office.house.records.list_events()]
    assert actions.count("account.changed") == 3


async def test_the_limits_of_an_account_are_not_for_a_key_that_its_own_key_made(office: Any) -> None:
    key = await account_key(office)
    body = {"concurrent_requests_limit": 1}
    assert (await office.call("PUT", ACCOUNT + "/limits", key, json=body)).status_code == 200
    child = (await office.call("POST", ACCOUNT + "/keys", key, json={"name": "child"})).json()["key"]
    for wish in ({"concurrent_requests_limit": None}, {"daily_requests_limit": 1}):
        refused = await office.call("PUT", ACCOUNT + "/limits", child, json=wish)
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    found = (await office.call("GET", ACCOUNT + "/limits", child)).json()
    assert found["concurrent_requests_limit"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {"daily_requests_limit": 0},
        {"alert_threshold": 101},
        {"billing_email": "nobody"},
        {"timezone": "../etc"},
        {"unknown": 1},
        {"concurrent_requests_limit": "3"},
    ],
)
async def test_a_wrong_limit_is_named(office: Any, body: dict[str, Any]) -> None:
    answer = await office.call("PUT", ACCOUNT + "/limits", await account_key(office), json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, next(iter(body)))


async def test_a_key_is_made_listed_changed_and_ended(office: Any) -> None:
    key = await account_key(office)
    one = await made(office, key, description="for a robot", custom_daily_limit=3, custom_concurrent_limit=1)
    assert (one["custom_daily_limit"], one["custom_concurrent_limit"]) == (3, 1)
    listed = (await office.call("GET", KEYS, key)).json()
    answers.AccountKeysAnswer.model_validate(listed)
    primary = (await office.call("GET", ACCOUNT, key)).json()["api_key_id"]
    assert [each["id"] for each in listed["keys"]] == [primary, one["id"]]
    assert "key" not in listed["keys"][1]
    body = {"name": "renamed", "description": None, "custom_daily_limit": None}
    changed = (await office.call("PUT", f"{KEYS}/{one['id']}", key, json=body)).json()
    assert changed["name"] == "renamed" and changed["custom_concurrent_limit"] == 1
    assert "custom_daily_limit" not in changed and "description" not in changed
    assert (await office.call("GET", f"{KEYS}/{one['id']}", key)).json() == changed
    ended = await office.call("DELETE", f"{KEYS}/{one['id']}", key)
    assert (ended.status_code, ended.content) == (204, b"")
    assert (await office.call("GET", "/v1/sessions", one["key"])).status_code == 401
    for method in ("GET", "PUT", "DELETE"):
        assert (await office.call(method, f"{KEYS}/{one['id']}", key, json={"name": "x"})).status_code == 404


async def test_it_is_the_accounts_its_things_and_its_plan(office: Any) -> None:
    key = await account_key(office)
    one = await made(office, key, custom_concurrent_limit=1)
    session = await office.house.create(one["key"], resources={"memoryMB": 256})
    assert (await office.call("GET", f"/v1/sessions/{session['id']}", key)).status_code == 200
    body = {"image": "host", "network": "none", "resources": {"memoryMB": 256}}
    assert (await office.call("POST", "/v1/sessions", one["key"], json=body)).status_code == 429
    assert (await office.call("POST", "/v1/sessions", key, json=body)).status_code == 201
    large = await office.call("POST", "/v1/sessions", key, json=body | {"resources": {"memoryMB": 1024}})
    assert large.status_code == 429  # of the plan


async def test_a07_a_rotated_key_opens_nothing_with_its_old_text(office: Any) -> None:
    key = await account_key(office, prefix="tb_user_")
    one = await made(office, key)
    for key_id, old in ((one["id"], one["key"]), ((await office.call("GET", ACCOUNT, key)).json()["api_key_id"], key)):
        caller = old if old == key else key
        answer = await office.call("POST", f"{KEYS}/{key_id}/rotate", caller)
        assert answer.status_code == 200, answer.text
        renewed = answers.AccountNewKeyAnswer.model_validate(answer.json())
        assert renewed.id == key_id and renewed.key != old
        assert (await office.call("GET", ACCOUNT, old)).status_code == 401
        assert (await office.call("GET", ACCOUNT, renewed.key)).status_code == 200
    assert renewed.key.startswith("tb_user_")


async def test_the_primary_key_is_not_deleted(office: Any) -> None:
    key = await account_key(office)
    primary = (await office.call("GET", ACCOUNT, key)).json()["api_key_id"]
    answer = await office.call("DELETE", f"{KEYS}/{primary}", key)
    assert answer.status_code == 400
    for body in ({"custom_daily_limit": 1}, {"expires_at": "2999-01-01T00:00:00Z"}):
        assert (await office.call("PUT", f"{KEYS}/{primary}", key, json=body)).status_code == 403


async def test_a_made_key_is_no_wider_than_what_made_it(office: Any) -> None:
    key = await account_key(office, expiresIn=1, permissions=["read", "write"])
    one = await made(office, key)
    record = await office.house.records.get_key(one["id"])
    assert record.scopes == {"read", "write"} and record.plan == "free" and record.kind is KeyKind.STANDARD
    assert record.expires_at is not None
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    assert (await office.call("POST", KEYS, key, json={"name": "x", "expires_at": later})).status_code == 400
    assert (await office.call("PUT", f"{KEYS}/{one['id']}", key, json={"expires_at": later})).status_code == 400
    unbounded = await office.call("PUT", f"{KEYS}/{one['id']}", key, json={"expires_at": None})
    assert unbounded.json()["expires_at"] == one["expires_at"]
    # it sees itself and what it made, and not what made it
    primary = record.owner
    assert [each["id"] for each in (await office.call("GET", KEYS, one["key"])).json()["keys"]] == [one["id"]]
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/rotate")):
        answer = await office.call(method, f"{KEYS}/{primary}{path}", one["key"], json={"name": "x"})
        assert answer.status_code == 404
    # and ends with it
    await office.call("POST", f"/admin/keys/{primary}/revoke")
    assert (await office.call("GET", ACCOUNT, one["key"])).status_code == 401


async def test_a02_anothers_key_is_an_unknown_one(office: Any) -> None:
    key, other = await account_key(office), await account_key(office)
    one = await made(office, key)
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/rotate")):
        found = [
            await office.call(method, f"{KEYS}/{key_id}{path}", other, json={"name": "x"})
            for key_id in (one["id"], "key_0123456789ab")
        ]
        assert [answer.status_code for answer in found] == [404, 404]
        assert found[0].content == found[1].content
    assert (await office.call("GET", ACCOUNT, one["key"])).status_code == 200


async def test_strangers_get_nothing_unless_the_settings_say_so(office: Any) -> None:
    for path in ("/v1/waitlist", "/v1/quota-requests"):
        answer = await office.call("POST", path, None, json={"email": "a@example.com"})
        assert (answer.status_code, answer.json()["detail"]) == (404, "no such route")


async def test_a_stranger_gets_a_key_of_the_plan_free_and_so_many_from_one_address(open_office: Any) -> None:
    async with open_office(accounts={"waitlist": True}) as office:
        body = {"email": "Ann@Example.com", "name": "Ann"}
        answer = await office.call("POST", "/v1/waitlist", None, json=body)
        assert answer.status_code == 201 and answer.headers["ratelimit-policy"] == "5;w=3600"
        found = answers.WaitlistAnswer.model_validate(answer.json())
        account = (await office.call("GET", ACCOUNT, found.key)).json()
        assert (found.tier, account["tier"], account["email"]) == ("free", "free", "ann@example.com")
        again = await office.call("POST", "/v1/waitlist", None, json={"email": "ann@example.com"})
        assert again.status_code == 409
        wrong = await office.call("POST", "/v1/waitlist", None, json={"email": "nobody"})
        assert (wrong.status_code, wrong.json()["field"]) == (400, "email")
        ask = {"email": "b@example.com", "use_case": "robots", "requested_limits": {"daily": 9}, "budget": 5}
        asked = await office.call("POST", "/v1/quota-requests", None, json=ask)
        assert (asked.status_code, asked.json()["status"]) == (201, "pending")
        kept = await office.house.records.list_quota_requests()
        assert [(one.email, dict(one.detail)) for one in kept] == [
            ("b@example.com", {"use_case": "robots", "requested_limits": {"daily": 9}, "budget": 5})
        ]
        assert (await office.call("POST", "/v1/waitlist", None, json={"email": "c@example.com"})).status_code == 201
        limited = await office.call("POST", "/v1/waitlist", None, json={"email": "d@example.com"})
        assert limited.status_code == 429 and int(limited.headers["retry-after"]) > 3000
        events = [event for event in await office.house.records.list_events() if event.actor == "anonymous"]
        assert [event.action for event in events] == ["key.created", "quota.requested", "key.created"]
        assert "example.com" not in repr(events)


async def test_all_strangers_together_get_so_many(open_office: Any) -> None:
    rates = {"signup": {"address_requests": 0}}
    accounts = {"waitlist": True, "waitlist_max": 2, "requests_max": 2}
    async with open_office(accounts=accounts, rates=rates) as office:
        for path in ("/v1/waitlist", "/v1/quota-requests"):
            found = [await office.call("POST", path, None, json={"email": f"{n}@example.com"}) for n in range(3)]
            assert [answer.status_code for answer in found] == [201, 201, 429]


@pytest.mark.parametrize("rate", [None, Rate(0.01, 5)])
async def test_keys_that_a_key_made_share_its_rate(open_office: Any, rate: Rate | None) -> None:
    async with open_office(rates={"key_per_s": 0.01, "key_burst": 5}) as office:
        parent = (await office.house.app.keys.create("parent", rate=rate)).text
        asking = [parent, *[(await made(office, parent))["key"] for _ in range(2)]]
        found = [(await office.call("GET", "/v1/sessions", one)).status_code for one in (*asking, *asking)]
        assert found == [200] * 3 + [429] * 3
