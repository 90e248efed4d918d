"""A sandbox that ended is begun anew by who may make one, once for all its ports, and within what made it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.principal import Principal
from tests.surfaces.conftest import ALICE
from tests.surfaces.previews.conftest import Street, Streets, answering

MAKER = "sk_" + "5a" * 32  # another key of alice's
NARROW = "sk_" + "4a" * 32
MADE_WITH = Principal("key_a11ce0000000", KeyKind.STANDARD, DEFAULT_SCOPES, credential="key_5a5a5a000000")


async def site(street: Street, *ports: int, key: str = ALICE, public: bool = False) -> None:
    """The street's sandbox is one that can be begun anew, with these ports; programs serve those of what follows."""
    call = street.house.call
    workspace = (await call("POST", "/v1/workspaces", json={"name": "site"})).json()["id"]
    body = {"command": ["sleep", "60"], "workspaces": [{"workspace": workspace}]}
    street.sandbox = (await street.house.create(key, **body))["id"]
    for port in ports:
        await street.register(port=port, public=public)
    take_port = street.take_port

    async def taken(sandbox: str, port: int) -> Any:
        if sandbox != street.sandbox:
            street.serve(answering([]), port=port, sandbox=sandbox)
        return await take_port(sandbox, port)

    street.house.app.runtime.take_port = taken  # type: ignore[method-assign]


async def end(street: Street, *, by_itself: bool) -> None:
    await street.house.call("DELETE", f"/v1/sessions/{street.sandbox}")
    if by_itself:
        records = street.house.records
        records._sandboxes[street.sandbox] = replace(records._sandboxes[street.sandbox], reason="exited")


async def counts(street: Street) -> tuple[int, int]:
    """Sandboxes that run, and workspaces."""
    sessions = (await street.house.call("GET", "/v1/sessions")).json()["sessions"]
    workspaces = (await street.house.call("GET", "/v1/workspaces")).json()["workspaces"]
    return sum(one["status"] == "running" for one in sessions), len(workspaces)


@pytest.mark.parametrize("by_itself", [True, False])
@pytest.mark.parametrize(
    ("scopes", "bounded"), [({Scope.EXECUTE, Scope.READ}, False), (DEFAULT_SCOPES, True)], ids=["scopes", "resources"]
)
async def test_who_may_make_no_sandbox_begins_none_anew_and_who_may_is_not_kept_waiting(
    open_street: Streets, scopes: set[Scope], bounded: bool, by_itself: bool
) -> None:
    async with open_street() as street:
        await site(street, 3000, 3001)
        resources = frozenset({street.sandbox}) if bounded else None
        street.house.keys.principals[NARROW] = replace(
            MADE_WITH, scopes=frozenset(scopes), resources=resources, credential="key_4a4a4a000000", lineage=()
        )
        await end(street, by_itself=by_itself)
        before = await counts(street)
        for port in (3000, 3001):
            assert (await street.house.call("GET", street.path(port=port), NARROW)).status_code == 502
        assert await counts(street) == before
        assert (await street.house.call("GET", street.path())).text == "hi"


async def test_visitors_of_all_ports_begin_one(open_street: Streets) -> None:
    async with open_street() as street:
        ports = (3000, 3001, 3002)
        await site(street, *ports, public=True)
        await end(street, by_itself=True)
        running, workspaces = await counts(street)
        answers = await asyncio.gather(*(street.house.call("GET", street.path(port=port), None) for port in ports))
        assert {one.text for one in answers} == {"hi"}
        assert await counts(street) == (running + 1, workspaces + 1)
        shown = (await street.house.call("GET", "/preview/list")).json().values()
        assert len({one["fallback_sandbox_id"] for one in shown}) == 1


@pytest.mark.parametrize("now", ["as it was", "narrowed", "revoked"])
async def test_visitors_get_no_more_than_the_key_that_made_it_has_now(
    open_street: Streets, monkeypatch: pytest.MonkeyPatch, now: str
) -> None:
    async with open_street() as street:
        keys, sandboxes = street.house.keys.principals, street.house.app.sandboxes
        keys[MAKER] = MADE_WITH
        await site(street, 3000, key=MAKER, public=True)
        await end(street, by_itself=True)
        if now == "narrowed":
            keys[MAKER] = replace(MADE_WITH, scopes=frozenset({Scope.EXECUTE, Scope.READ}))
        elif now == "revoked":
            del keys[MAKER]
        before, create, by = await counts(street), sandboxes.create, list[Principal]()

        async def noted(principal: Principal, *args: Any, **named: Any) -> Any:
            by.append(principal)
            return await create(principal, *args, **named)

        monkeypatch.setattr(sandboxes, "create", noted)
        answer = await street.house.call("GET", street.path(), None)
        if now == "as it was":
            assert answer.text == "hi"
            assert [one.lineage for one in by] == [(MADE_WITH.credential,)], "whose budgets are asked"
        else:
            assert (answer.status_code, by, await counts(street)) == (502, [], before)
