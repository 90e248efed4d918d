"""N14: programs that are dead, slow, endless or destroyed: an answer in time, nothing left, others unaffected."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from atoll.domain.errors import Conflict
from tests.surfaces.conftest import ALICE
from tests.surfaces.previews.conftest import Heard, Street, Streets, answering, heard

QUICK = {"previews": {"first_byte_s": 0.3, "idle_s": 0.3}}


def detail(answer: httpx2.Response) -> str:
    return answer.json()["detail"]


async def test_n14_a_closed_port_is_502_and_an_ended_sandbox_too(open_street: Streets) -> None:
    async with open_street() as street:
        await street.register()
        answer = await street.house.call("GET", street.path())
        assert (answer.status_code, detail(answer)) == (
            502, "Preview target failed: nothing listens on port 3000 in the sandbox",
        )  # fmt: skip
        await street.house.call("DELETE", f"/v1/sessions/{street.sandbox}")
        answer = await street.house.call("GET", street.path())
        assert (answer.status_code, detail(answer)) == (
            502, "Preview target failed: sandbox not running: status=killed",
        )  # fmt: skip


async def test_n14_who_accepts_and_hangs_is_504_in_time_while_others_are_served(open_street: Streets) -> None:
    async with open_street(more_settings=QUICK) as street:

        async def hangs(reader: StreamReader, _writer: StreamWriter) -> None:
            while await reader.read(65_536):
                pass

        street.serve(hangs)
        street.serve(answering([]), port=3001)
        await street.register()
        await street.register(port=3001)
        slow = [asyncio.create_task(street.house.call("GET", street.path())) for _ in range(20)]
        assert (await street.house.call("GET", street.path(port=3001))).text == "hi"
        assert {(await one).status_code for one in slow} == {504}
        assert (await street.house.call("POST", street.path(), content=b"x" * 100_000)).status_code == 504


async def test_n14_a_program_is_not_late_while_its_client_still_speaks(open_street: Streets) -> None:
    found: list[Heard] = []

    async def speaks() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x"
            await asyncio.sleep(0.1)

    async with open_street(more_settings={"previews": {"first_byte_s": 0.3, "idle_s": 2}}) as street:
        street.serve(answering(found))
        await street.register()
        answer = await street.house.call("POST", street.path(), content=speaks())
        assert (answer.status_code, answer.text) == (200, "hi")
        assert found[0].body == b"xxxxxx"


async def test_n14_a_client_that_falls_silent_is_told_and_no_fallback_takes_over(open_street: Streets) -> None:
    async with open_street(more_settings=QUICK) as street:
        spare = (await street.house.create())["id"]
        street.serve(answering([]))
        street.serve(answering([]), sandbox=spare)
        await street.register(public=True, fallback_sandbox_id=spare)
        said = await street.raw(
            f"POST {street.path()} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nx".encode()
        )
        assert said.startswith(b"HTTP/1.1 504 ")
        assert b"did not come in time" in said
        shown = (await street.house.call("GET", "/preview/list")).json()
        assert [one["use_fallback"] for one in shown.values()] == [False]


async def test_n14_a_drip_goes_on_and_a_silence_breaks_off(open_street: Streets) -> None:
    async with open_street(more_settings={"previews": {"idle_s": 0.5}}) as street:

        async def drips(reader: StreamReader, writer: StreamWriter) -> None:
            await heard(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
            for _ in range(5):
                writer.write(b"x")
                await asyncio.sleep(0.15)
            await reader.read()

        street.serve(drips)
        await street.register()
        got = b""
        with pytest.raises(httpx2.RemoteProtocolError):
            async with stream(street) as answer:
                async for piece in answer.aiter_raw():
                    got += piece
        assert got == b"xxxxx"
        await street.quiet()


async def test_n14_an_endless_body_waits_for_its_reader_and_ends_with_it(open_street: Streets) -> None:
    async with open_street() as street:
        sent = 0

        async def endless(reader: StreamReader, writer: StreamWriter) -> None:
            nonlocal sent
            await heard(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536

        street.serve(endless)
        await street.register()
        async with stream(street) as answer:
            await anext(answer.aiter_raw())
            before = -1
            while before < sent:  # it stands still once all that is between is full
                before = sent
                await asyncio.sleep(0.1)
            assert sent < 32 * 2**20
        await street.quiet()


async def test_n14_a_program_that_dies_in_its_answer_breaks_off_the_clients(open_street: Streets) -> None:
    async with open_street() as street:

        async def dies(reader: StreamReader, writer: StreamWriter) -> None:
            await heard(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await writer.drain()

        street.serve(dies)
        await street.register()
        with pytest.raises(httpx2.RemoteProtocolError):
            await street.house.call("GET", street.path())
        await street.quiet()


async def test_n14_a_stream_ends_with_its_registration(open_street: Streets) -> None:
    async with open_street() as street:

        async def stays(reader: StreamReader, writer: StreamWriter) -> None:
            await heard(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
            await reader.read()

        street.serve(stays)
        await street.register(public=True)
        with pytest.raises(httpx2.RemoteProtocolError):
            async with stream(street, None) as answer:
                pieces = answer.aiter_raw()
                assert await anext(pieces) == b"abc"
                await street.house.call("DELETE", f"/preview/register/{street.sandbox}/3000")
                await anext(pieces)
        await street.quiet()


async def test_bodies_and_connections_are_bounded(open_street: Streets) -> None:
    bounds = {"body_bytes": 1000, "connections_per_port": 2}
    async with open_street(more_settings={"previews": bounds}) as street:
        go = asyncio.Event()

        async def waits(reader: StreamReader, writer: StreamWriter) -> None:
            await heard(reader)
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
            await reader.read()

        street.serve(waits)
        await street.register()

        async def pieces() -> Any:
            for _ in range(11):
                yield b"x" * 100

        for body in (b"x" * 1001, pieces()):
            assert (await street.house.call("POST", street.path(), content=body)).status_code == 413
        two = [asyncio.create_task(street.house.call("GET", street.path())) for _ in range(2)]
        async with asyncio.timeout(5):
            while street.open < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await street.house.call("GET", street.path())).status_code == 503
        go.set()
        assert [(await one).text for one in two] == ["hi", "hi"]


async def test_a_fallback_takes_over_once_and_the_request_is_sent_again(open_street: Streets) -> None:
    async with open_street() as street:
        other = (await street.house.create())["id"]
        found: list[Heard] = []
        street.serve(answering(found), sandbox=other)
        await street.register(fallback_sandbox_id=other)
        many = [street.house.call("POST", street.path("/a"), content=b"body") for _ in range(8)]
        assert {(one.status_code, one.text) for one in await asyncio.gather(*many)} == {(200, "hi")}
        assert {(one.line, one.body) for one in found} == {("POST /a HTTP/1.1", b"body")}
        shown = (await street.house.call("GET", "/preview/list")).json()[f"{street.sandbox}:3000"]
        assert shown["use_fallback"] is True
        events = await street.house.records.list_events(target=f"{street.sandbox}:3000")
        assert [one.action for one in events].count("preview.promoted") == 1
        street.serve(answering([], b"HTTP/1.1 204 No Content\r\n\r\n"))
        assert (await street.house.call("GET", street.path())).status_code == 200, "it stays with the fallback"
        await street.register(fallback_sandbox_id=other)
        assert (await street.house.call("GET", street.path())).status_code == 204, "until it is registered anew"


async def test_one_slow_page_is_no_reason_for_a_fallback_and_nothing_is_done_twice(open_street: Streets) -> None:
    async with open_street(more_settings=QUICK) as street:
        other = (await street.house.create())["id"]
        posts: list[Heard] = []

        async def slow(reader: StreamReader, writer: StreamWriter) -> None:
            asked = await heard(reader)
            if asked.line.startswith("OPTIONS"):
                writer.write(b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n")
            elif asked.line.startswith("POST"):
                posts.append(asked)
            await reader.read()

        async def hangs_up(reader: StreamReader, _writer: StreamWriter) -> None:
            posts.append(await heard(reader))

        street.serve(slow)
        street.serve(answering(posts), sandbox=other)
        await street.register(public=True, fallback_sandbox_id=other)
        assert (await street.house.call("GET", street.path(), None)).status_code == 504
        shown = (await street.house.call("GET", "/preview/list")).json()
        assert [one["use_fallback"] for one in shown.values()] == [False]
        street.serve(hangs_up)
        assert (await street.house.call("POST", street.path(), None, content=b"pay")).status_code == 502
        assert [one.line for one in posts if one.line.startswith("POST")] == ["POST / HTTP/1.1"]
        shown = (await street.house.call("GET", "/preview/list")).json()
        assert [one["use_fallback"] for one in shown.values()] == [True], "it does not answer at all"
        assert (await street.house.call("GET", street.path(), None)).text == "hi"


@pytest.mark.parametrize("framing", ["content-length: 4", "transfer-encoding: chunked"])
async def test_a_request_whose_body_was_not_sent_yet_goes_on_at_a_fallback(open_street: Streets, framing: str) -> None:
    found: list[Heard] = []

    async def hangs_up(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with open_street() as street:
        other = (await street.house.create())["id"]
        street.serve(hangs_up)
        street.serve(answering(found), sandbox=other)
        await street.register(public=True, fallback_sandbox_id=other)
        host, port = street.house.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(f"POST {street.path()} HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n".encode())
            async with asyncio.timeout(10):
                while street.connections < 3:  # noqa: ASYNC110  # the program's, its health's and the fallback's
                    await asyncio.sleep(0.01)
                writer.write(b"body" if framing.endswith("4") else b"4\r\nbody\r\n0\r\n\r\n")
                assert b" 200 OK" in await reader.readline()
        finally:
            writer.close()
            await writer.wait_closed()
        assert [(one.line, one.body) for one in found] == [("POST / HTTP/1.1", b"body")]


async def test_a_body_is_not_kept_for_another_try(open_street: Streets) -> None:
    async with open_street() as street:
        street.serve(answering([]))
        await street.register()
        for body in (b"a", b"b"):
            assert (await street.house.call("PUT", street.path(), content=body)).text == "hi"
        assert street.connections == 2, "what cannot be sent again gets a connection that cannot be stale"


async def test_a_fallback_that_fails_too_is_502(open_street: Streets) -> None:
    async with open_street() as street:
        other = (await street.house.create())["id"]
        await street.register(fallback_sandbox_id=other)
        for _ in range(2):
            assert (await street.house.call("GET", street.path())).status_code == 502


def stream(street: Street, key: str | None = ALICE) -> Any:
    return street.house.http.stream("GET", street.house.url + street.path(), headers=street.house.headers(key))


async def test_a_sandbox_that_ended_is_begun_anew_from_its_latest_snapshot(open_street: Streets) -> None:
    async with open_street() as street:
        call = street.house.call
        workspace = (await call("POST", "/v1/workspaces", json={"name": "site"})).json()["id"]
        body = {"command": ["sleep", "60"], "workspaces": [{"workspace": workspace}]}
        street.sandbox = (await street.house.create(**body))["id"]
        await call("POST", f"/v1/workspaces/{workspace}/snapshots", json={})
        await street.register()
        take_port = street.take_port

        async def taken(sandbox: str, port: int) -> Any:
            if sandbox != street.sandbox:
                street.serve(answering([]), sandbox=sandbox)
            return await take_port(sandbox, port)

        street.house.app.runtime.take_port = taken  # type: ignore[method-assign]
        await call("DELETE", f"/v1/sessions/{street.sandbox}")
        token = {"x-preview-token": await street.token()}
        assert (await call("GET", street.path(), None, headers=token)).status_code == 502, "its owner has ended it"
        answers = await asyncio.gather(*(call("GET", street.path()) for _ in range(5)))
        assert {one.text for one in answers} == {"hi"}
        shown = (await call("GET", "/preview/list")).json()[f"{street.sandbox}:3000"]
        assert shown["use_fallback"] is True
        begun = (await call("GET", f"/v1/sessions/{shown['fallback_sandbox_id']}")).json()
        assert (begun["status"], begun["command"]) == ("running", ["sleep", "60"])
        sessions = (await call("GET", "/v1/sessions")).json()
        live = [one for one in sessions["sessions"] if one["status"] == "running"]
        assert len(live) == 2, "the street's own, and one that took over"
        assert begun["workspaces"][0]["workspace"] != workspace


@pytest.mark.parametrize("fails", ["making", "promoting"])
async def test_what_was_begun_for_nothing_is_not_left_nor_begun_again_at_once(
    open_street: Streets, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    async with open_street() as street:
        call, app = street.house.call, street.house.app
        workspace = (await call("POST", "/v1/workspaces", json={"name": "site"})).json()["id"]
        body = {"command": ["sleep", "60"], "workspaces": [{"workspace": workspace}]}
        street.sandbox = (await street.house.create(**body))["id"]
        await street.register()
        await call("DELETE", f"/v1/sessions/{street.sandbox}")
        tried: list[str] = []

        async def refused(*_args: Any, **_named: Any) -> Any:
            tried.append(fails)
            raise Conflict("not now")

        broken = (app.sandboxes, "create") if fails == "making" else (app.showing.previews, "promote")
        monkeypatch.setattr(*broken, refused)
        for _ in range(3):
            assert (await call("GET", street.path())).status_code == 502
        assert [one["name"] for one in (await call("GET", "/v1/workspaces")).json()["workspaces"]] == ["site"]
        sessions = (await call("GET", "/v1/sessions")).json()["sessions"]
        assert len([one for one in sessions if one["status"] == "running"]) == 1, "the street's own"
        assert len(tried) == 1


async def test_the_timer_goes_on_while_programs_that_hang_are_asked(
    open_street: Streets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.gateway.previews.pool.UPKEEP_S", 0.02)
    async with open_street(more_settings={"previews": {"health_s": 0.1}}) as street:
        showing, asked, looks = street.house.app.showing, asyncio.Event(), asyncio.Semaphore(0)

        async def hangs() -> None:
            asked.set()
            await asyncio.Event().wait()

        async def looked() -> None:
            if asked.is_set():
                looks.release()

        showing.health.run = hangs
        showing.pool.checks.append(looked)
        async with asyncio.timeout(5):
            for _ in range(3):
                await looks.acquire()


async def test_health_is_asked_of_what_is_in_use(open_street: Streets) -> None:
    async with open_street() as street:
        found: list[Heard] = []
        street.serve(answering(found))
        await street.register(health_path="/up?x=1")
        showing = street.house.app.showing
        for program, healthy in ((answering(found), True), (answering([], b"HTTP/1.1 500 No\r\n\r\n"), False)):
            street.serve(program)
            await street.house.call("GET", street.path())
            await showing.health.run()
            listed = (await street.house.call("GET", "/preview/list")).json()
            assert listed[f"{street.sandbox}:3000"]["healthy"] is healthy
        assert "GET /up?x=1 HTTP/1.1" in {one.line for one in found}
        await showing.health.run()
        listed = (await street.house.call("GET", "/preview/list")).json()
        assert listed[f"{street.sandbox}:3000"]["healthy"] is None


async def test_the_health_of_a_promoted_preview_is_that_of_what_serves_it_now(open_street: Streets) -> None:
    async with open_street() as street:
        other, showing = (await street.house.create())["id"], street.house.app.showing
        street.serve(answering([]))
        street.serve(answering([]), sandbox=other)
        await street.register(fallback_sandbox_id=other)

        async def healthy() -> bool | None:
            return (await street.house.call("GET", "/preview/list")).json()[f"{street.sandbox}:3000"]["healthy"]

        assert (await street.house.call("GET", street.path())).text == "hi"
        await showing.health.run()
        assert await healthy() is True
        await street.fall_silent()
        assert (await street.house.call("GET", street.path())).text == "hi", "of the fallback"
        assert await healthy() is None, "what was asked before serves no more"
        await showing.health.run()
        assert await healthy() is True
        await street.fall_silent(other)
        assert (await street.house.call("GET", street.path())).status_code == 502
        await showing.health.run()
        assert await healthy() is False
