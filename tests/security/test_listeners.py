"""A01 to A03 on the listeners of single services: the same door, and the same tenants behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from atoll.domain.key import Scope
from atoll.surfaces.listeners import SERVICES
from atoll.surfaces.operation import Operation
from atoll.testing.memory_records import MemoryRecords
from tests.security.calling import knock, line, unnamed
from tests.security.route import ADMIN_KEY, PUBLIC
from tests.security.routes import ANYBODYS, ROUTES
from tests.security.test_tenancy import ADMIN_TEXT, REFUSALS, RealKeys, Town, settled, state
from tests.security.things import NOBODYS
from tests.surfaces.conftest import House, Opener, open_house  # noqa: F401
from tests.surfaces.test_listeners import beside

# What Testbase's listener has in place of the Agent Workspace API's.
OWN = {"listTestbaseWorkspaces": "read", "deleteTestbaseWorkspace": "write"}


@pytest.fixture
async def town(open_house: Opener) -> AsyncIterator[tuple[Town, dict[str, str]]]:  # noqa: F811
    """Two tenants, and the URLs of the listeners."""
    records = MemoryRecords()
    keys = RealKeys(records)
    async with (
        open_house(
            records=records, keys=keys, rates={"enabled": False}, admin={"api_key": ADMIN_TEXT},
            auth={"registration": True}, more_settings={"listen": {one.name: 0 for one in SERVICES}},
        ) as house,
        beside(house.app) as urls,
    ):  # fmt: skip
        yield await settled(house, keys), urls


def at(house: House, url: str) -> House:
    return replace(house, url=url)


async def test_a01_every_listener_opens_the_same_public_routes_and_no_more(town: tuple[Town, dict[str, str]]) -> None:
    here, urls = town
    revoked = await here.keys.create("r", owner=here.alice.id)
    await here.keys.revoke(revoked.key.id)
    before = await state(here)
    for address, listener in here.house.app.listeners:
        there = at(here.house, urls[listener.service.name])
        opened: set[tuple[str, str]] = set()
        for operation in listener.operations:
            if operation.id not in ROUTES:  # its own, or one that test_tenancy misses
                continue
            status, body = await knock(there, operation, here.alice.has, None)
            if line(operation).opens == ADMIN_KEY:
                assert status == 401, operation.id
            elif status == 401 and line(operation).opens != PUBLIC:
                assert operation.method == "HEAD" or any(text in body for text in REFUSALS), (operation.id, body)
            else:
                opened.add((operation.method, operation.path))
        assert opened <= ANYBODYS, address
        ops = {(one.method, one.path) for one in listener.operations if line_opens(one) == PUBLIC}
        assert opened == ops
        closed = [one for one in listener.operations if line_opens(one) not in (PUBLIC, ADMIN_KEY) and one.id in ROUTES]
        for operation in [one for one in closed if one.method == "GET"][:1]:
            status, _ = await knock(there, operation, here.alice.has, revoked.text)
            assert status in (401, 403), operation.id
    assert await state(here) == before


def line_opens(operation: Operation) -> str:
    return ROUTES[operation.id].opens if operation.id in ROUTES else OWN.get(operation.id, "unknown")


async def test_a01_a02_a03_testbases_own_workspaces(town: tuple[Town, dict[str, str]]) -> None:
    here, urls = town
    there, alice, bob = at(here.house, urls["testbase"]), here.alice, here.bob
    unasked = await state(here)
    for method, path in (("GET", "/workspaces"), ("DELETE", f"/workspaces/{alice.has['workspace']}")):
        refused = await there.call(method, path, None)
        assert (refused.status_code, refused.json()["error"]) == (401, "Unauthorized")
        assert (await there.call(method, path, "sk_" + "0" * 64)).status_code == 403
    told = [
        unnamed(
            ((answer := await there.call("DELETE", f"/workspaces/{one}", bob.key)).status_code, answer.content), ids
        )
        for ids, one in ((alice.has, alice.has["workspace"]), (NOBODYS, NOBODYS["workspace"]))
    ]
    assert told[0] == told[1] and told[0][0] == 404
    listed = (await there.call("GET", "/workspaces", bob.key)).text
    own = {one["name"] for one in (await here.house.call("GET", "/workspaces", bob.key)).json()}
    assert alice.has["workspace"] not in listed and {one["id"] for one in json.loads(listed)["workspaces"]} == own
    assert await state(here) == unasked
    weak = await here.key(alice, scopes=frozenset({Scope.EXECUTE}))
    reader = await here.key(alice, scopes=frozenset({Scope.READ}))
    before = await state(here)
    assert (await there.call("GET", "/workspaces", weak)).status_code == 403
    assert (await there.call("GET", "/workspaces", reader)).status_code == 200
    path = f"/workspaces/{alice.has['workspace']}"
    assert (await there.call("DELETE", path, reader)).status_code == 403
    assert await state(here) == before
    assert (await there.call("DELETE", path, alice.key)).status_code == 200
    events = await here.house.records.list_events(tenant=alice.id, limit=100)
    assert "workspace.deleted" in {event.action for event in events}
