"""How many connections there may be, and who goes when there are too many."""

from __future__ import annotations

import asyncio
import resource
from contextlib import AsyncExitStack, suppress
from ipaddress import ip_network
from typing import Any, cast

import pytest

from atoll import serve
from atoll.settings import Settings
from atoll.surfaces.crowd import Crowd
from tests.surfaces.conftest import Opener
from tests.surfaces.test_http_turns import connected, until
from tests.surfaces.test_transport import UPGRADE, upgraded

UPGRADE_THAT_FAILS = b"GET /nowhere HTTP/1.1\r\n%b\r\n" % UPGRADE


class Transport:
    """One connection, which may be cut."""

    def __init__(self) -> None:
        self.is_cut = False

    def abort(self) -> None:
        self.is_cut = True


def joined(crowd: Crowd, address: str) -> Any:
    found = cast("Any", Transport())
    crowd.join(found, address)
    return found


def test_an_address_has_so_many_and_the_newest_goes() -> None:
    crowd = Crowd(100, 2, [ip_network("10.0.0.0/8")])
    first, second, third = (joined(crowd, "192.0.2.1") for _ in range(3))
    assert (first.is_cut, second.is_cut, third.is_cut, len(crowd)) == (False, False, True, 2)
    assert not joined(crowd, "192.0.2.2").is_cut
    crowd.leave(third)
    crowd.leave(second)
    crowd.leave(second)
    assert not joined(crowd, "192.0.2.1").is_cut and joined(crowd, "192.0.2.1").is_cut
    assert [joined(crowd, f"2001:db8::{one}").is_cut for one in range(3)] == [False, False, True]
    for many in ("127.0.0.1", "127.0.0.9", "::1", "10.1.2.3"):
        assert not any(joined(crowd, many).is_cut for _ in range(5)), many


def test_when_it_is_full_those_go_first_who_have_asked_for_nothing_then_who_rest() -> None:
    crowd = Crowd(4, 100)
    half, rests, works, other_half = (joined(crowd, "127.0.0.1") for _ in range(4))
    for one in (rests, works):
        crowd.busy(one)
    crowd.rests(rests)
    fifth = joined(crowd, "127.0.0.1")
    assert half.is_cut and not other_half.is_cut
    crowd.busy(fifth)
    sixth = joined(crowd, "127.0.0.1")
    assert other_half.is_cut and not rests.is_cut
    crowd.busy(sixth)
    seventh = joined(crowd, "127.0.0.1")
    assert rests.is_cut and not (works.is_cut or seventh.is_cut)
    crowd.busy(seventh)
    assert joined(crowd, "127.0.0.1").is_cut and not works.is_cut
    assert len(crowd) == 4


async def test_a_server_full_of_half_heads_serves_who_asks(open_house: Opener) -> None:
    async with open_house(server={"port": 0, "drain_s": 1, "connections": 20}) as house, AsyncExitStack() as stack:
        half = b"GET / HTTP/1.1\r\nx: "
        port = int(house.url.rpartition(":")[2])
        opened = [await stack.enter_async_context(connected(port)) for _ in range(20)]
        for _, writer in opened:
            writer.write(half)
        async with upgraded(house):
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(opened[0][0].read(), 10) == b""
            assert not opened[-1][0].at_eof()


async def test_whoever_hangs_up_makes_room_websockets_too(open_house: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd(100, 100)
    monkeypatch.setattr(serve, "_crowd", lambda _: crowd)
    async with open_house() as house:
        async with upgraded(house), connected(int(house.url.rpartition(":")[2])) as (reader, writer):
            assert (await house.call("GET", "/health", None)).status_code == 200
            writer.write(UPGRADE_THAT_FAILS)
            await asyncio.wait_for(reader.read(), 10)
            assert len(crowd) >= 2
        await house.http.aclose()
        await until(lambda: not len(crowd))


def test_half_of_the_files_are_kept_for_the_servers_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 40))
    crowd = serve._crowd(Settings.model_validate({"server": {"connections": 1_000}}))
    for _ in range(11):
        joined(crowd, "127.0.0.1")
    assert len(crowd) == 10
