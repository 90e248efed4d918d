"""The model gateway against programs and providers that mean no good."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from atoll.domain.ledger import Payer
from atoll.gateway import models
from atoll.services.models.limits import ModelLimits
from atoll.services.models.passing import ModelAnswer
from atoll.services.models.refusals import Because, CallRefused
from tests.certificates import Authority
from tests.gateway.models import REAL_KEY, TASK, Purse, World, gateway, settled
from tests.gateway.test_models import PATHS, asked

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@asynccontextmanager
async def provider(
    *pieces: bytes, hold: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A server that answers every request with these bytes, and then hangs up."""
    heard: list[bytes] = []
    over = asyncio.Event()

    async def handle(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            heard.append(head + await reader.readexactly(size))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if hold:
                await over.wait()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        host = "127.0.0.1" if tls is None else "localhost"
        yield f"http{'s' if tls else ''}://{host}:{server.sockets[0].getsockname()[1]}", heard
    finally:
        over.set()
        server.close()


async def raw(world: World, data: bytes) -> bytes:
    """What a program that writes these bytes gets until the end, or for a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(data)
    got = b""
    try:
        async with asyncio.timeout(1):
            while piece := await reader.read(65_536):
                got += piece
    except (TimeoutError, OSError):
        pass
    writer.close()
    return got


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("script", ["garbage\nsay: a", "flood: 3000000\nsay: a", "line: 3000000\nsay: a"])
async def test_r_what_a_provider_says_besides_does_no_harm(path: str, script: str):
    async with gateway() as world:
        body = asked(path, f"{script}\nusage: input=9 output=3", stream=True)
        answer = await world.client.post(path, json=body)
        assert answer.status_code == 200
        await settled(world)
        assert [(use.input, use.output, use.estimated) for use in world.used] == [(9, 3, False)]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_encoding_that_was_not_asked_for_is_an_error_and_costs_nothing(stream: bool):
    async with gateway() as world:
        answer = await world.client.post("/v1/responses", json=asked("/v1/responses", "say: a\ngzip", stream=stream))
        assert answer.status_code == 502 and "encoding" in answer.text
        assert world.resolved() and not world.used


@pytest.mark.parametrize("usage", ["input=-5 output=-5", "input=1000000000000 output=2", "input=abc output=x", "none"])
async def test_b05_no_usage_of_a_provider_takes_more_than_there_is(usage: str):
    async with gateway() as world:
        for path in PATHS:
            for stream in (True, False):
                body = asked(path, f"say: a b c\nusage: {usage}", stream=stream)
                assert (await world.client.post(path, json=body)).status_code == 200
        await settled(world)
        assert len(world.used) == 6
        assert all(use.estimated and 0 < use.input < 1_000 and 0 <= use.output < 1_000 for use in world.used)


async def test_a_use_that_is_told_twice_is_charged_once():
    async with gateway() as world:
        for path in PATHS:
            body = asked(path, "say: a\nusage: input=10 output=2 twice=1", stream=True)
            await world.client.post(path, json=body)
        await settled(world)
        assert [(use.input, use.output) for use in world.used] == [(10, 2)] * 3
        assert world.purse.balance == 10**9 - 3 * (150 + 90)


async def test_an_endless_answer_is_cut():
    async with gateway(limits=ModelLimits(answer_bytes=100_000)) as world:
        body = asked("/v1/chat/completions", "flood: 5000000", stream=True)
        answer = await world.client.post("/v1/chat/completions", json=body)
        await settled(world)
        assert len(answer.content) < 200_000 and "more than 100000 bytes" in answer.text
        assert len(world.used) == 1 and world.used[0].estimated


@pytest.mark.parametrize(
    "answer",
    [
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"",
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nContent-Length: 12\r\n\r\n<html>secret",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_n08_a_provider_that_is_none_is_a_502(answer: bytes):
    async with provider(answer) as (url, heard), gateway(base=url) as world:
        got = await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))
        assert got.status_code == 502 and "secret" not in got.text
        assert world.resolved() and not world.used and len(heard) == 1


async def test_an_error_that_repeats_the_key_or_sets_a_cookie_does_not_pass_them():
    body = json.dumps({"error": {"message": f"bad {REAL_KEY}"}}).encode()
    head = f"HTTP/1.1 400 Bad\r\nSet-Cookie: s=1\r\nX-Leak: 1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with provider(head + body) as (url, _), gateway(base=url) as world:
        got = await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))
        assert got.status_code == 400 and "bad ***" in got.text
        assert not {"set-cookie", "x-leak"} & set(got.headers) and REAL_KEY not in got.text


SMUGGLED = b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


ODD = (
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length : 5\r\n",
    b"Host: y\r\nContent-Length: 5\r\n",
    b"X: a\r\n b\nContent-Length: 5\r\n",
)


async def test_q_smuggled_requests_reach_no_provider():
    post = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\n"
    async with gateway() as world:
        await asyncio.gather(*(raw(world, post + head + b"\r\n0\r\n\r\n" + SMUGGLED) for head in ODD))
        assert not world.model.log and not world.purse.holds
        body = json.dumps(asked("/v1/responses", "hi")).encode()
        await raw(world, post + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert len(world.model.log) == 1  # without what is odd about it


@pytest.mark.parametrize("value", ["é".encode("latin-1"), b"\xff", b"sk_" + 32 * b"a1"])
async def test_w_a_header_that_no_provider_knows_or_that_is_a_key_goes_no_further(value: bytes):
    async with gateway() as world:
        headers = [(b"anthropic-beta", value), (b"anthropic-version", b"2023-06-01")]
        answer = await world.client.post("/v1/messages", json=asked("/v1/messages", "hi"), headers=headers)
        [only] = world.model.log
        assert answer.status_code == 200 and "anthropic-beta" not in only.header


@pytest.mark.parametrize("path", PATHS)
async def test_a_fault_of_ours_is_told_in_the_providers_form(path: str, monkeypatch: pytest.MonkeyPatch):
    async with gateway() as world:

        async def broken(*_: object) -> None:
            raise RuntimeError("a secret of the server's")

        monkeypatch.setattr(world.calls, "_let_through", broken)
        answer = await world.client.post(path, json=asked(path, "hi"))
        assert answer.status_code >= 500 and "try again" in answer.json()["error"]["message"]
        assert "secret" not in answer.text


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_that_is_no_stream_breaks_off_without_an_event_in_it(
    path: str, monkeypatch: pytest.MonkeyPatch
):
    async with gateway() as world:

        async def pieces() -> AsyncGenerator[bytes]:
            yield b'{"half":'
            raise CallRefused(Because.PROVIDER, "it broke")

        async def answered(*_: object) -> ModelAnswer:
            return ModelAnswer(200, {"content-type": "application/json"}, pieces())

        monkeypatch.setattr(world.calls, "_answer", answered)
        with pytest.raises(httpx2.RemoteProtocolError):
            await world.client.post(path, json=asked(path, "hi"))


async def test_w_no_byte_of_a_request_head_becomes_a_header_of_ours():
    async with gateway() as world:
        evil = "v\tx" + "y" * 3_000
        for value in (evil, "2023-06-01"):
            headers = {"anthropic-version": value, "anthropic-beta": "a" * 5_000, "openai-beta": "b"}
            await world.client.post("/v1/messages", json=asked("/v1/messages", "hi"), headers=headers)
        first, second = world.model.log
        assert "anthropic-version" not in first.header and second.header["anthropic-version"] == "2023-06-01"
        assert "anthropic-beta" not in second.header and second.header["openai-beta"] == "b"
        assert second.header["host"] == world.model.url.removeprefix("http://")


async def test_r_bodies_are_bounded_in_size_time_and_all_together():
    limits = ModelLimits(request_bytes=1_000, body_s=0.3, held_bytes=1_500)
    async with gateway(limits=limits) as world:
        large = await world.client.post("/v1/messages", content=b"x" * 1_001)
        assert (large.status_code, large.json()["error"]["type"]) == (413, "request_too_large")

        async def chunks() -> AsyncGenerator[bytes]:
            for _ in range(3):
                yield b"x" * 500

        assert (await world.client.post("/v1/messages", content=chunks())).status_code == 413
        head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"
        assert b"did not come within" in await raw(world, head + b"x" * 100)
        slow, more = await asyncio.gather(
            raw(world, head + b"x" * 899), raw(world, head.replace(b"responses", b"messages") + b"x" * 899)
        )
        assert b"did not come" in slow + more and b"too many large requests" in slow + more
        packed = await world.client.post("/v1/responses", content=b"{}", headers={"Content-Encoding": "gzip"})
        assert packed.status_code == 400
        assert not world.model.log
        assert (await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))).status_code == 200


async def test_r_one_account_does_not_fill_the_room_of_all_and_who_has_no_task_sends_no_body():
    limits = ModelLimits(request_bytes=1_000, body_s=1.0, held_bytes=8_000, account_held_bytes=1_500)
    head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 990\r\n\r\n"
    async with gateway(limits=limits) as world:
        slow = [asyncio.create_task(raw(world, head + b"x" * 900)) for _ in range(2)]
        await asyncio.sleep(0.2)
        world.side.payers[TASK] = Payer("key_b0b000000000", task=TASK)
        assert (await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))).status_code == 200
        assert any(b"too many large requests" in got for got in await asyncio.gather(*slow))
        world.side.payers.clear()
        assert b"task_over" in await raw(world, head)  # nothing of the body was waited for


async def test_r_bodies_are_read_within_the_places_of_their_task():
    limits = ModelLimits(calls_per_task=1, queue_s=0.2, body_s=0.8)
    head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 990\r\n\r\n"
    async with gateway(limits=limits) as world:
        got = await asyncio.gather(raw(world, head), raw(world, head))
        assert sorted(b"too many calls" in one for one in got) == [False, True]
        assert (await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))).status_code == 200


async def test_b01_small_images_are_held_as_what_they_may_cost_and_a_loss_is_not_repeated():
    image = "data:image/png;base64," + base64.b64encode(b"x" * 600).decode()
    path, price = "/v1/chat/completions", 15
    script = {"type": "text", "text": "wait: 0.3\nsay: a\nusage: input=90000 output=10"}
    parts = [script, *({"type": "image_url", "image_url": {"url": image}} for _ in range(3))]
    body = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": parts}]}
    async with gateway(purse=Purse(balance=2_000_000)) as world:  # one of them at a time
        answers = await asyncio.gather(*(world.client.post(path, json=body) for _ in range(3)))
        assert [answer.status_code for answer in answers].count(200) == 1
        assert all(hold.amount >= 90_000 * price for hold in world.purse.holds.values())
        assert world.purse.balance == 2_000_000 - 90_000 * price - 10 * 45
    # what no count foresees is lost once
    async with gateway(purse=Purse(balance=2_000_000), limits=ModelLimits(image_tokens=0)) as world:
        assert (await world.client.post(path, json=body)).status_code == 200
        answers = await asyncio.gather(*(world.client.post(path, json=body) for _ in range(3)))
        first, *later = world.purse.holds.values()
        assert first.amount < 90_000 * price and later[0].amount == 2_000_000 - 90_000 * price - 10 * 45
        assert [answer.status_code for answer in answers].count(200) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_b05_who_hangs_up_before_the_last_event_pays_what_it_tells(path: str):
    async with gateway() as world:
        script = "usage: input=500 output=10000\nsay: one two\nwait: 0.5"
        body = (
            asked(path, script, stream=True, max_tokens=20_000)
            if "resp" not in path
            else asked(path, script, stream=True)
        )
        async with world.client.stream("POST", path, json=body) as answer:
            async for piece in answer.aiter_bytes():
                if b"two" in piece:
                    break
        await settled(world)
        assert [(use.input, use.output, use.estimated) for use in world.used] == [(500, 10_000, False)]


async def test_a_task_that_is_over_is_not_read_on_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "READ_ON_S", 60)
    async with gateway() as world:
        body = asked("/v1/messages", "usage: input=50 output=9\nsay: one two\nhang", stream=True)
        async with world.client.stream("POST", "/v1/messages", json=body) as answer:
            said = aiter(answer.aiter_bytes())
            while b"two" not in await anext(said):
                pass
            world.side.payers.clear()
        await settled(world)
        assert [use.estimated for use in world.used] == [True]


async def test_n14_a_provider_that_accepts_and_says_nothing_or_drips_ends():
    limits = ModelLimits(first_byte_s=0.3, between_s=0.3, call_s=1.0)
    async with provider(hold=True) as (url, _), gateway(base=url, limits=limits) as world:
        assert (await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))).status_code == 504
    async with gateway(limits=limits) as world:
        drip = asked("/v1/responses", "slow: 0.1\nsay: " + "a " * 100, stream=True)
        answer = await world.client.post("/v1/responses", json=drip)
        await settled(world)
        assert "took too long" in answer.text and len(world.used) == 1
        assert [told[0] for told in world.side.told] == ["hung", "used"]


async def test_a_provider_without_a_certificate_that_is_trusted_hears_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    authority = Authority(tmp_path)
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    async with provider(answer, tls=authority.server("localhost")) as (url, heard):
        async with gateway(base=url) as world:
            refused = await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))
            assert refused.status_code == 502 and not heard and world.resolved()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with gateway(base=url) as world:
            assert (await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))).status_code == 200
            assert REAL_KEY.encode() in heard[0]


async def test_n14_nobody_at_the_providers_address():
    async with provider() as (url, _):
        pass
    async with gateway(base=url) as world:
        got = await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))
        assert (got.status_code, got.headers["retry-after"]) == (502, "1")
        assert world.resolved() and not world.side.told


async def test_c01_a_server_that_stops_in_the_middle_settles_what_is_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "READ_ON_S", 1)
    purse = Purse()
    async with gateway(purse=purse) as world:
        body = asked("/v1/messages", "usage: input=50 output=9\nsay: one two\nhang", stream=True)
        async with world.client.stream("POST", "/v1/messages", json=body) as answer:
            said = aiter(answer.aiter_bytes())
            while b"two" not in await anext(said):
                pass
            assert not world.resolved()
            for stream in world.serving:  # as the gates do with all streams of a server that stops
                stream.cancel()
            with pytest.raises(httpx2.HTTPError):
                async for _ in said:
                    pass
    assert world.resolved()
    (use,) = purse.uses
    assert use.tokens.input == 50 and use.tokens.estimated
