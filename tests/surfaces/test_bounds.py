"""Every route that takes a body bounds it in bytes and in time, each in its dialect's own envelope."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from atoll.surfaces import bodies
from tests.security.calling import target
from tests.security.routes import ADMIN, ADMIN_KEY, PERSON, PUBLIC, ROUTES
from tests.security.things import NOBODYS, Ids, Tenant, group, sandbox, secret, workspace

LARGE = {  # bodies with bounds of their own
    "syncMissing": 2**21,
    "syncFetch": 2**21,
    "syncCommit": 2**28,
    "syncChunks": 2**40,
    "importWorkspace": 2**40,
    "writeFile": 2**40,
    "agentsWriteFile": 2**40,
    "agentsHydrate": 2**40,
    "uploadFile": 100 * 2**20 + 2**16,
}


async def asked(house: Any, operation: Any, ids: dict[str, str], key: str, length: int, body: bytes) -> tuple[int, Any]:
    """The answer to a request whose body is announced as `length` bytes, of which only `body` comes."""
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{operation.method} {target(operation, ids)} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    writer.write(f"{head}content-length: {length}\r\n\r\n".encode() + body)
    try:
        async with asyncio.timeout(10):
            status = int((await reader.readline()).split()[1])
            rest = await reader.readuntil(b"\r\n\r\n")
            sized = [
                line.partition(b":")[2] for line in rest.splitlines() if line.lower().startswith(b"content-length")
            ]
            answer = json.loads(await reader.readexactly(int(sized[0]))) if sized else None
    finally:
        writer.close()
        await writer.wait_closed()
    return status, answer


def with_bodies(house: Any) -> list[Any]:
    """Of those that a key opens."""
    served = [one for route in house.app.routes for one in route.operations]
    others = (PUBLIC, PERSON, ADMIN, ADMIN_KEY)
    return [one for one in served if one.body is not None and ROUTES[one.id].opens not in others]


async def of_alice(house: Any, keys: Any) -> Ids:
    alice = Tenant("alice", "key_a11ce0000000", keys.ALICE, {})
    made = [await make(house, alice) for make in (sandbox, workspace, group, secret)]
    return NOBODYS | {name: value for one in made for name, value in one.items()}


async def test_a_body_beyond_its_bound_is_refused_at_its_announcement(house: Any, keys: Any) -> None:
    ids = await of_alice(house, keys)
    for operation in with_bodies(house):
        length = LARGE.get(operation.id, house.app.settings.server.body_bytes) + 1
        status, answer = await asked(house, operation, ids, keys.ALICE, length, b"")
        assert status == 413, operation.id
        if answer is not None:
            assert {"code", "error", "detail"} & set(answer), operation.id


async def test_a_body_that_does_not_come_is_not_waited_for(house: Any, keys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.1)
    monkeypatch.setattr(bodies, "CHUNK_S", 0.1)
    ids = await of_alice(house, keys)
    for operation in with_bodies(house):
        status, _ = await asked(house, operation, ids, keys.ALICE, 1000, b"{")
        assert status == 504 or (status == 400 and operation.id in LARGE), operation.id  # or wrong from its beginning


@pytest.mark.parametrize("body", [b"", b"null", b"5", b'"x"', b"{" * 50_000, b"\xff\xfe"])
async def test_what_is_no_body_is_told_in_every_dialect(house: Any, keys: Any, body: bytes) -> None:
    ids = await of_alice(house, keys)
    for operation in with_bodies(house):
        if not isinstance(operation.body, str) and not (body == b"" and not operation.body_required):
            status, answer = await asked(house, operation, ids, keys.ALICE, len(body), body)
            # who cannot pay for a task hears that first
            assert status in (400, 422) or (status, operation.id) == (402, "execute"), (operation.id, answer)
