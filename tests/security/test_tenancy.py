"""Who may do what, over every route of the running application (A01-A03, A07, W01, W02).

Each HTTP and WebSocket operation is called with no credential, with dead ones, with those of another tenant, and with
each scope taken away. What a route needs stands in routes.py: one that is missing there fails here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.services.keys import Keys
from atoll.surfaces.operation import WEBSOCKET, Operation
from atoll.testing.memory_records import MemoryRecords
from tests.security.calling import knock, line, things, unnamed
from tests.security.routes import ADMIN, ADMIN_KEY, ANY, ANYBODYS, PERSON, PUBLIC, ROUTES, TESTBASE
from tests.security.things import KNOWN, MAKERS, NOBODYS, Tenant
from tests.surfaces.conftest import House, Opener, open_house  # noqa: F401

ADMIN_TEXT = "of-the-administrator-in-the-tests-0123456789"
LET_IN = (101, 502)  # the second: by a preview, behind which no program listens
MALFORMED = dict.fromkeys(NOBODYS, "nonsense")
SUBSETS = [frozenset(some) for n in (0, 1, 2) for some in itertools.combinations(sorted(DEFAULT_SCOPES), n)]
# How each dialect says that there is no valid credential.
REFUSALS = (
    b'"code":"UNAUTHORIZED"',
    b'{"detail":"Authorization header must start with',
    b'{"error":"unauthorized"',
    b'{"error":"Unauthorized"',
    b'{"error":"Forbidden"',
    b'{"error":"A valid API key is required',
    b'{"success":false,"error":"A valid API key is required',
)


class RealKeys(Keys):
    """As the application makes them."""

    principals: dict[str, Any] = {}  # noqa: RUF012  # for whoever opens the house: nobody needs an introduction


@dataclass
class Town:
    """A server with two tenants that have one of everything."""

    house: House
    keys: Keys
    alice: Tenant
    bob: Tenant

    def served(self) -> Iterator[Operation]:
        for route in self.house.app.routes:
            yield from route.operations  # pyright: ignore[reportAttributeAccessIssue]

    def operations(self) -> Iterator[Operation]:
        """Those in the matrix: what is missing there fails one test, and not all."""
        return (operation for operation in self.served() if operation.id in ROUTES)

    async def key(self, of: Tenant | None = None, **how: Any) -> str:
        made = await self.keys.create("k", **({} if of is None else {"owner": of.id}) | how)
        return made.text


async def settled(house: House, keys: Keys) -> Town:
    """Alice and bob in that house."""
    owner = await keys.create("operator", kind=KeyKind.OWNER)
    tenants: list[Tenant] = []
    for name in ("alice", "bob"):
        made = await keys.create(name)
        tenant = Tenant(name, made.key.id, made.text, {"principal": made.key.id}, admin=owner.text)
        for make in MAKERS:
            tenant.has |= await make(house, tenant)
        tenants.append(tenant)
    return Town(house, keys, *tenants)


@pytest.fixture
async def town(open_house: Opener) -> AsyncIterator[Town]:  # noqa: F811
    records = MemoryRecords()
    keys = RealKeys(records)
    async with open_house(
        records=records,
        keys=keys,
        rates={"enabled": False},
        admin={"api_key": ADMIN_TEXT},
        auth={"registration": True},
        sandboxes={"mount_roots": [str(Path(__file__).resolve().parent)]},
    ) as house:
        yield await settled(house, keys)


async def state(town: Town) -> tuple[Any, ...]:
    """All that the records say about alice's."""
    records, mine = town.house.records, (town.alice.id, town.alice.has["group"])
    events = [await records.list_events(tenant=owner, limit=10_000) for owner in mine]
    return (
        [event for some in events for event in some if event.outcome == "ok"],
        [(one.id, one.state) for one in await records.list_sandboxes(owner=mine, removed=None)],
        await records.list_workspaces(owner=mine, deleted=None),
        await records.list_members(mine[1]),
        [replace(one, last_used_at=None) for one in await records.list_keys(owner=mine[0], include_revoked=True)],
    )


# A01


async def test_every_route_stands_in_the_matrix_and_nothing_else_does(town: Town) -> None:
    served = {operation.id: operation for operation in town.served()}
    missing = [one for one in served.values() if one.id not in ROUTES]
    lines = "\n".join(f'    "{one.id}": Route("read"),  # {one.method} {one.path}' for one in missing)
    assert not missing, (
        f"not in the matrix of authorisation. Add to ROUTES in tests/security/routes.py:\n{lines}\n"
        'with the scope it needs ("execute", "read write", ...), or PUBLIC, ANY, PERSON, ADMIN, ADMIN_KEY; '
        "of={parameter: thing} for what its path names, body= and query= for what it takes; and to "
        "tests/security/things.py how such a thing is made, where it is of a new kind"
    )
    for operation in served.values():
        things(operation)
    assert set(ROUTES) - set(served) == set(), "these are not served any more: take their lines out of routes.py"


async def test_a01_only_the_public_list_opens_without_a_credential(town: Town) -> None:
    before = await state(town)
    opened: set[tuple[str, str]] = set()
    for operation in town.operations():
        status, body = await knock(town.house, operation, town.alice.has, None)
        if line(operation).opens == ADMIN_KEY:
            assert status == 401, operation.id
        elif status == 401 and line(operation).opens != PUBLIC:
            assert operation.method == "HEAD" or any(text in body for text in REFUSALS), (operation.id, body)
        else:
            opened.add((operation.method, operation.path))
    assert opened == ANYBODYS
    declared = {(one.method, one.path) for one in town.operations() if line(one).opens == PUBLIC}
    assert declared == ANYBODYS, "the public list may only shrink"
    assert await state(town) == before


# A07, W01


async def test_a07_w01_a_dead_credential_opens_nothing(town: Town) -> None:
    """Revoked, expired, of a parent that ended, of a user who is disabled, and what never was one."""
    alice, records = town.alice, town.house.records
    revoked, expired = await town.keys.create("r", owner=alice.id), await town.keys.create("e", owner=alice.id)
    await town.keys.revoke(revoked.key.id)
    stored = await records.get_key(expired.key.id)
    assert stored is not None
    await records.swap_key(replace(stored, expires_at=datetime.now(UTC) - timedelta(seconds=1)), None)
    parent = await town.keys.create("p", owner=alice.id)
    child = await town.keys.create("c", owner=alice.id, parent=parent.key.id)
    await town.keys.revoke(parent.key.id)
    users = await town.keys.create("u", owner=alice.has["user"])
    path = f"/api/users/{alice.has['user']}"
    assert (await town.house.call("PATCH", path, alice.admin, json={"disabled": True})).status_code == 200
    before = await state(town)
    disabled = (users.text, alice.token)
    for key in (
        revoked.text,
        expired.text,
        child.text,
        *disabled,
        "sk_" + "0" * 64,
        "nonsense",
        "eyJhbGciOiJub25lIn0.e30.",
    ):
        for operation in town.operations():
            opens = line(operation).opens
            if opens == PUBLIC:
                continue
            status, _ = await knock(town.house, operation, alice.has, key)
            expected = (403,) if opens == ADMIN_KEY else (401, 403) if operation.path.startswith(TESTBASE) else (401,)
            assert status in expected, (operation.id, status)
    assert await state(town) == before


@pytest.mark.parametrize("header", ["Basic c2s6", "Bearer", "sk_", "", "Token a"])
async def test_a01_w01_a_header_that_holds_no_credential_opens_nothing(town: Town, header: str) -> None:
    for operation in town.operations():
        if line(operation).opens not in (PUBLIC, ADMIN_KEY):
            how = "additional_headers" if operation.method == WEBSOCKET else "headers"
            status, _ = await knock(town.house, operation, town.alice.has, None, **{how: {"authorization": header}})
            assert status == 401, operation.id


async def test_w02_a_cookie_authenticates_nobody_from_any_origin(town: Town) -> None:
    key, url = town.alice.key, town.house.url
    cookie = f"authorization=Bearer {key}; api_key={key}; session={key}; token={key}; access_token={key}"
    before = await state(town)
    for origin in ("http://evil.example", "null", url, None):
        headers = {"cookie": cookie} | ({} if origin is None else {"origin": origin})
        for operation in town.operations():
            if line(operation).opens not in (PUBLIC, ADMIN_KEY):
                how = "additional_headers" if operation.method == WEBSOCKET else "headers"
                status, _ = await knock(town.house, operation, town.alice.has, None, **{how: headers})
                assert status == 401, (operation.id, origin)
    assert await state(town) == before


async def test_w02_the_origin_changes_nothing_for_who_authenticates_by_header(town: Town) -> None:
    for operation in town.operations():
        if operation.method == WEBSOCKET:
            for origin in ("http://evil.example", "null", town.house.url):
                headers = {"origin": origin}
                status, _ = await knock(
                    town.house, operation, town.alice.has, town.alice.key, additional_headers=headers
                )
                assert status in LET_IN, (operation.id, origin)


# A02


async def test_a02_what_is_another_tenants_is_unknown(town: Town) -> None:
    """In the path: of alice's, nobody's and malformed ids bob hears the same, and nothing of alice's changes."""
    before = await state(town)
    for operation in town.operations():
        opens = line(operation).opens
        named = {thing for thing in things(operation).values() if not thing.startswith("/")} - KNOWN
        if not named or opens in (PUBLIC, ADMIN_KEY):
            continue
        bob = town.bob.token if opens == PERSON else town.bob.key
        theirs, nobodys, malformed = [
            unnamed(await knock(town.house, operation, asked, bob, town.bob.has), asked)
            for asked in (town.alice.has, NOBODYS, MALFORMED)
        ]
        if opens == ADMIN:
            assert theirs == nobodys and theirs[0] == 403, operation.id
            continue
        assert theirs == nobodys, operation.id
        assert theirs[0] == 404 and malformed[0] in (400, 404), operation.id
    assert await state(town) == before


async def test_a02_another_tenants_ids_inside_of_ones_own_request_are_unknown_too(town: Town) -> None:
    """In bodies and queries, where the path names what is bob's own."""
    before = await state(town)
    for operation in town.operations():
        asks = line(operation)
        inside = json.dumps(asks.body if not isinstance(asks.body, bytes) else None) + asks.query
        if any(f"<{thing}>" in inside for thing in set(NOBODYS) - KNOWN):
            theirs, nobodys = [
                unnamed(await knock(town.house, operation, town.bob.has, town.bob.key, asked), asked)
                for asked in (town.alice.has, NOBODYS)
            ]
            assert theirs == nobodys, operation.id
            assert theirs[0] in (400, 404), (operation.id, theirs)
    assert await state(town) == before


async def test_a02_no_list_shows_what_is_another_tenants(town: Town) -> None:
    hidden = [value for name, value in town.alice.has.items() if name != "snapshot"]
    for operation in town.operations():
        if operation.method == "GET" and not things(operation) and line(operation).opens != PUBLIC:
            status, body = await knock(town.house, operation, town.bob.has, town.bob.key)
            assert status in (200, 403, 404, 503), (operation.id, status)
            assert not [value for value in hidden if value.encode() in body], operation.id


async def test_a02_revisions_and_snapshots_of_others_are_unknown_in_ones_own_workspace(town: Town) -> None:
    ws, bob = "/v1/workspaces/" + town.bob.has["workspace"], town.bob.key

    async def answers(rev: str, snap: str) -> list[tuple[int, str]]:
        calls: list[tuple[str, str, Any]] = [
            ("GET", f"{ws}/revisions/{rev}", None),
            ("GET", f"{ws}/files?revision={rev}", None),
            ("GET", f"{ws}/file?path=a&revision={rev}", None),
            ("GET", f"{ws}/diff?from={rev}", None),
            ("GET", f"{ws}/diff?from=HEAD&to={rev}", None),
            ("GET", f"{ws}/sync/entries?revision={rev}", None),
            ("GET", f"{ws}/sync/entries?since={rev}", None),
            ("GET", f"{ws}/export?revision={rev}", None),
            ("POST", f"{ws}/restore", {"revision": rev}),
            ("POST", f"{ws}/fork", {"name": "stolen", "revision": rev}),
            ("POST", f"{ws}/merge", {"source": town.bob.has["workspace"], "base": rev}),
            ("DELETE", f"{ws}/snapshots/{snap}", None),
            ("DELETE", f"/snapshot/{snap}", None),
        ]
        found = [await town.house.call(method, path, bob, json=body) for method, path, body in calls]
        return [(one.status_code, one.text.replace(rev, "REV").replace(snap, "SNAP")) for one in found]

    # Ids of snapshots are moments, which both tenants' may share: only a revision tells them apart.
    theirs = await answers(town.alice.has["revision"], "snap_2001_01_01_000000")
    assert theirs == await answers(NOBODYS["revision"], NOBODYS["snapshot"])
    assert {status for status, _ in theirs} == {404}


# A03


@pytest.mark.parametrize("scopes", SUBSETS, ids=lambda scopes: "+".join(sorted(scopes)) or "none")
async def test_a03_a_route_opens_with_its_scopes_and_without_one_of_them_does_not(
    town: Town, scopes: frozenset[Scope]
) -> None:
    key = await town.key(town.alice, scopes=scopes or frozenset({Scope.ADMIN}))
    # What ends something comes last: the others need it.
    for operation in sorted(
        town.operations(), key=lambda one: (one.method == "DELETE", one.id in ("stopSession", "stopCompute"))
    ):
        opens = line(operation).opens
        if opens in (PUBLIC, ADMIN_KEY):
            continue
        status, body = await knock(town.house, operation, town.alice.has, key)
        assert (status != 401 and status < 500) or status in (501, 502, 503, 504), (operation.id, status, body)
        allowed = opens not in (ADMIN, PERSON) and {Scope(word) for word in opens.split()} <= scopes
        assert (status != 403) == allowed, f"{operation.id}: {status} {body[:200]!r}; its line says {opens!r}"


async def test_a03_what_administers_the_server_takes_an_owner_key_or_the_admin_key(town: Town) -> None:
    owner, before = await town.key(kind=KeyKind.OWNER), await state(town)
    for operation in sorted(
        town.operations(), key=lambda one: (one.id == "adminRevokeKey", one.id == "adminDeleteKey")
    ):
        opens = line(operation).opens
        if opens not in (ADMIN, ADMIN_KEY):
            continue
        keys = [town.alice.key] if opens == ADMIN else [town.alice.key, town.alice.token, owner]
        for key in keys:
            status, body = await knock(town.house, operation, town.alice.has, key)
            assert status == 403, (operation.id, status, body)
        assert await state(town) == before, operation.id
        asked = NOBODYS if opens == ADMIN else town.alice.has
        status, body = await knock(town.house, operation, asked, owner if opens == ADMIN else ADMIN_TEXT)
        assert status not in (401, 403), (operation.id, body)
        # Alice is the only admin of her group, so her key is not deleted.
        done = (409,) if operation.id == "adminDeleteKey" else (200, 201, 204)
        assert opens == ADMIN or status in done, (operation.id, status, body)
        before = await state(town)


async def test_any_stands_only_where_no_scope_is_needed(town: Town) -> None:
    """What opens with no scope at all tells of oneself alone."""
    assert {one for one, route in ROUTES.items() if route.opens == ANY} <= {
        "me",
        "mintKey",
        "listMintedKeys",
        "getMintedKey",
        "revokeMintedKey",
        "createAccessKey",
        "listAccessKeys",
        "revokeAccessKey",
    }
