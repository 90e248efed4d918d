"""Quotas over HTTP: one's own for everybody, anybody's for administrators, and what a full one answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.surfaces.conftest import ALICE, BOB, OWNER, READER, WRITER, House, KeyRing, Opener

ALICE_ID = "key_a11ce0000000"


async def quotas(house: House, who: str = ALICE) -> dict[str, Any]:
    answer = await house.call("GET", "/api/quotas", who)
    assert answer.status_code == 200, answer.text
    [mine] = answer.json()["quotas"]
    return {one["name"]: one for one in mine["quotas"]}


def admin_ring() -> KeyRing:
    ring = KeyRing()
    ring.principals[OWNER] = replace(ring.principals[OWNER], admin=True)
    return ring


async def test_everybody_sees_what_they_may_use_and_use(house: House) -> None:
    await house.create()
    found = await quotas(house)
    assert found["concurrent_sandboxes"] == {
        "name": "concurrent_sandboxes",
        "limit": 100,
        "used": 1,
        "remaining": 99,
        "window_s": None,
        "resets_at": None,
    }
    assert found["executions_per_hour"]["window_s"] == 3600
    assert found["sandboxes_per_day"]["resets_at"].endswith("T00:00:00Z")
    assert (await quotas(house, BOB))["concurrent_sandboxes"]["used"] == 0
    assert {one["limit"] for one in (await quotas(house, OWNER)).values()} == {None}
    assert (await house.call("GET", "/api/quotas", WRITER)).status_code == 403


async def test_administrators_set_look_at_and_clear_anybody_s(open_house: Opener) -> None:
    async with open_house(keys=admin_ring()) as house:
        path = f"/api/quotas/{ALICE_ID}"
        done = await house.call(
            "PUT", path, OWNER, json={"quotas": {"concurrent_sandboxes": 1, "executions_per_hour": 5}}
        )
        assert done.status_code == 200, done.text
        assert done.json()["overrides"] == {"concurrent_sandboxes": 1, "executions_per_hour": 5}
        session = await house.create()
        refused = await house.call("POST", "/v1/sessions", json={"image": "host", "network": "none"})
        assert (refused.status_code, refused.json()["code"]) == (429, "QUOTA_EXCEEDED")
        assert refused.json()["error"] == "concurrent session limit reached (1/1)"
        run = f"/v1/sessions/{session['id']}/exec"
        for used in range(1, 6):
            answer = await house.call("POST", run, json={"command": ["true"]})
            told = answer.headers.get("atoll-quota-warning")
            assert told == (f"executions_per_hour {used}/5" if used >= 4 else None)
        full = await house.call("POST", run, json={"command": ["true"]})
        assert full.status_code == 429
        assert 3600 < int(full.headers["retry-after"]) <= 3661
        metrics = (await house.call("GET", "/metrics", None)).text
        assert 'quota_violations_total{quota_type="executions_per_hour"} 1.0' in metrics
        assert 'quota_warnings_total{quota_type="executions_per_hour"} 1.0' in metrics
        assert (await house.call("GET", path, OWNER)).json()["overrides"] == done.json()["overrides"]
        assert (await house.call("DELETE", path, OWNER)).json()["overrides"] == {}
        assert (await quotas(house))["concurrent_sandboxes"]["limit"] == 100
        actions = [event.action for event in await house.records.list_events(target=ALICE_ID)]
        assert [one for one in actions if one.startswith("quota.")] == [
            "quota.set",
            "quota.warning",
            "quota.exceeded",
            "quota.warning",
            "quota.exceeded",
            "quota.cleared",
        ]


@pytest.mark.parametrize("who", [ALICE, READER])
async def test_nobody_else_learns_anything_of_another_s(house: House, who: str) -> None:
    for subject in (ALICE_ID, "key_b0b000000000", "key_ffffffffffff"):
        answers = [
            await house.call("GET", f"/api/quotas/{subject}", who),
            await house.call("PUT", f"/api/quotas/{subject}", who, json={"quotas": {}}),
            await house.call("DELETE", f"/api/quotas/{subject}", who),
        ]
        assert {answer.status_code for answer in answers} == {403}
        assert len({answer.json()["message"] for answer in answers}) == 1


@pytest.mark.parametrize(
    "body",
    [{"quotas": {"memory": 1}}, {"quotas": {"memory_bytes": -1}}, {"quotas": {"memory_bytes": 1.5}}, {}, {"x": 1}],
)
async def test_what_is_no_quota_is_refused_by_name(open_house: Opener, body: dict[str, Any]) -> None:
    async with open_house(keys=admin_ring()) as house:
        answer = await house.call("PUT", f"/api/quotas/{ALICE_ID}", OWNER, json=body)
        assert answer.status_code == 400
        assert any(name in answer.json()["message"] for name in ("quotas", "memory_bytes", "x"))


async def test_an_unknown_subject_is_not_found(open_house: Opener) -> None:
    async with open_house(keys=admin_ring()) as house:
        for subject in ("key_ffffffffffff", "user_" + "f" * 24, "nobody"):
            answer = await house.call("PUT", f"/api/quotas/{subject}", OWNER, json={"quotas": {}})
            assert answer.status_code == 404


async def test_settings_change_plans(open_house: Opener) -> None:
    plans = {"key": {"concurrent_sandboxes": 2, "memory_bytes": 2**30}, "free": {"sandboxes_per_day": -1}}
    async with open_house(quotas={"plans": plans}) as house:
        found = await quotas(house)
        assert (found["concurrent_sandboxes"]["limit"], found["memory_bytes"]["limit"]) == (2, 2**30)
