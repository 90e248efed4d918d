"""The WebSocket of events: who gets in, what terminals and commands tell, and what a bad or slow client costs."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from atoll.services.daemon import hub as hubs
from atoll.surfaces.sidekick import socket as module
from tests.surfaces.conftest import BOB, READER
from tests.surfaces.sidekick.conftest import Daemon, heard, send
from tests.surfaces.sidekick.test_frames import packed


@pytest.mark.parametrize("key, status", [(None, 401), ("sk_wrong", 401), (BOB, 404)])
async def test_w01_nobody_without_a_credential_of_its_own_gets_in(daemon: Daemon, key: str | None, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with daemon.events(key):
            pass
    assert refused.value.response.status_code == status
    assert b'{"error":' in refused.value.response.body


async def test_w01_a_key_in_the_address_is_no_credential(daemon: Daemon) -> None:
    key = next(iter(daemon.house.keys.principals))
    with pytest.raises(InvalidStatus) as refused:
        async with daemon.events(None, f"?token={key}&protocol=json"):
            pass
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("encoding", ["raw", "base64"])
async def test_a_terminal_is_announced_replayed_typed_into_and_ended(daemon: Daemon, encoding: str) -> None:
    async with daemon.events(query="?protocol=binary") as socket:
        made = await daemon.data("POST", "/terminals", status=201, json={"pty": True, "encoding": encoding})
        assert made["channel"] == f"terminal:{made['id']}"
        created = await heard(socket, "terminal:created")
        assert created["data"] == {"id": made["id"], "status": "running"}
        await socket.send(packed("subscribe", made["channel"]))
        await socket.send(packed("terminal:resize", data={"terminal_id": made["id"], "cols": 91, "rows": 17}))
        await socket.send(packed("terminal:input", data={"terminal_id": made["id"], "input": "stty\n"}))
        output = ""
        while "17 91" not in output:
            told = (await heard(socket, "terminal:output"))["data"]
            text = told["output"]
            output += base64.b64decode(text).decode() if encoding == "base64" else text
            assert told["encoding"] == encoding
        assert (await daemon.call("DELETE", f"/terminals/{made['id']}")).status_code == 204
        ended = await heard(socket, "terminal:destroyed", "terminal:error")
        assert (ended["type"], ended["data"]["id"]) == ("terminal:destroyed", made["id"])


async def test_w10_whoever_comes_later_is_told_what_the_ring_still_has(daemon: Daemon) -> None:
    made = await daemon.data("POST", "/terminals", status=201, json={"pty": True})
    for word in ("first", "second"):
        async with daemon.events() as socket:
            await send(socket, "subscribe", made["channel"])
            await send(socket, "terminal:input", terminal_id=made["id"], input=f"echo {word}$((1))\n")
            output = ""
            while word not in output:
                output += (await heard(socket, "terminal:output"))["data"]["output"]
    assert "first" in output


async def test_a_prepared_command_starts_with_its_message_and_tells_its_end_once_to_each(daemon: Daemon) -> None:
    async with daemon.events() as one, daemon.events() as other:
        command = "echo out; echo err >&2; exit 5"
        made = await daemon.data("POST", "/run/command", json={"command": command, "stream": True})
        for socket in (one, other):
            await send(socket, "subscribe", made["channel"])
        await send(other, "ping")
        await heard(other, "pong")  # it listens
        await send(one, "command:start", cmd_id=made["cmd_id"])
        for socket in (one, other):
            told = [await heard(socket, "command:stdout", "command:stderr", "command:exit") for _ in range(3)]
            outputs = {message["type"]: message["data"].get("output") for message in told}
            assert outputs == {"command:stdout": "out\n", "command:stderr": "err\n", "command:exit": None}
            assert told[-1]["data"] == {"terminal_id": "run", "cmd_id": made["cmd_id"], "exit_code": 5}
        await send(one, "command:start", cmd_id=made["cmd_id"])
        assert "no such command" in (await heard(one, "error", "command:exit"))["data"]["error"]


async def test_who_may_not_start_a_prepared_command_does_not_take_it_from_who_may(daemon: Daemon) -> None:
    made = await daemon.data("POST", "/run/command", json={"command": "true", "stream": True})
    async with daemon.events(READER) as reader, daemon.events() as socket:
        await send(reader, "command:start", cmd_id=made["cmd_id"])
        assert "execute" in (await heard(reader, "error"))["data"]["error"]
        await send(socket, "subscribe", made["channel"])
        await send(socket, "command:start", cmd_id=made["cmd_id"])
        assert (await heard(socket, "command:exit", "error"))["data"].get("exit_code") == 0


async def test_w10_a_command_goes_on_where_a_lost_socket_was(daemon: Daemon) -> None:
    made = await daemon.data("POST", "/run/command", json={"command": "echo one; sleep 0.2; echo two", "stream": True})
    async with daemon.events() as socket:
        await send(socket, "subscribe", made["channel"])
        await send(socket, "command:start", cmd_id=made["cmd_id"])
        assert (await heard(socket, "command:stdout"))["data"]["output"] == "one\n"
    async with daemon.events() as socket:
        await send(socket, "subscribe", made["channel"])
        assert (await heard(socket, "command:stdout"))["data"]["output"] == "two\n"
        assert (await heard(socket, "command:exit"))["data"]["exit_code"] == 0


async def test_who_may_only_read_sees_and_types_nothing(daemon: Daemon) -> None:
    made = await daemon.data("POST", "/terminals", status=201, json={"pty": True})
    async with daemon.events(READER) as socket:
        await send(socket, "subscribe", made["channel"])
        assert (await heard(socket, "terminal:output"))["data"]["output"]
        await send(socket, "terminal:input", terminal_id=made["id"], input="exit\n")
        assert (await heard(socket, "terminal:error"))["channel"] == made["channel"]
        await send(socket, "command:start", cmd_id="cmd_x")
        assert (await heard(socket, "error"))["data"]["error"]
    assert (await daemon.data("GET", f"/terminals/{made['id']}"))["status"] == "running"


@pytest.mark.parametrize(
    "message, error",
    [
        ("{", "JSON"),
        (b"\x03\x00", "shorter"),
        ('{"type": "dance"}', "dance"),
        ('{"type": "subscribe"}', "channel"),
        ('{"type": "subscribe", "channel": "%s"}' % ("x" * 300), "channel"),
        ('{"type": "terminal:input", "data": {}}', "terminal_id"),
        ('{"type": "terminal:input", "data": {"terminal_id": "t", "input": 5}}', "input"),
        ('{"type": "terminal:input", "data": {"terminal_id": "t", "input": "\\ud800"}}', "UTF-8"),
        ('{"type": "terminal:input", "data": {"terminal_id": "t", "input": "x"}}', "not found"),
        ('{"type": "terminal:resize", "data": {"terminal_id": "t", "cols": 1e400, "rows": 1}}', "cols"),
        ('{"type": "terminal:resize", "data": {"terminal_id": "t", "cols": 80, "rows": true}}', "rows"),
        ('{"type": "terminal:resize", "data": {"terminal_id": "t", "cols": 80, "rows": 70000}}', "rows"),
        ('{"type": "terminal:resize", "data": {"terminal_id": "t", "cols": 1%s, "rows": 1}}' % ("0" * 400), "cols"),
        ('{"type": "terminal:resize", "data": {"terminal_id": "\\ud800", "cols": 1, "rows": 1}}', "terminal_id"),
        ('{"type": "subscribe", "channel": "\\ud800"}', "channel"),
        ('{"type": "dance", "channel": "\\ud800"}', "dance"),
        ('{"type": "command:start", "data": {"cmd_id": "c"}}', "command"),
    ],
    ids=[
        "no json", "short", "unknown", "no channel", "long channel", "no terminal", "number", "surrogate", "missing",
        "infinite", "boolean", "too tall", "huge", "surrogate terminal", "surrogate channel", "surrogate unknown",
        "no command",
    ],
)  # fmt: skip
async def test_a_bad_message_is_answered_and_the_socket_goes_on(
    daemon: Daemon, message: str | bytes, error: str
) -> None:
    async with daemon.events() as socket:
        await socket.send(message)
        assert error in (await heard(socket, "error", "terminal:error"))["data"]["error"]
        await send(socket, "ping")
        await heard(socket, "pong")


async def test_w06_who_does_not_read_is_closed_and_the_others_hear_on(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_S", 0.3)
    hub = daemon.house.app.hubs.of(daemon.id)
    async with daemon.events(max_queue=1) as dead, daemon.events() as alive:
        for socket in (dead, alive):
            await send(socket, "subscribe", "c")
            await send(socket, "ping")
            await heard(socket, "pong")
        numbers = 0
        async with asyncio.timeout(10):
            while len(hub.listeners) == 2:
                hub.publish("e", "c", {"text": "x" * 200_000})
                await heard(alive, "e")
                numbers += 1
        hub.publish("e", "c", {"last": True})
        assert (await heard(alive, "e"))["data"] == {"last": True}
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await dead.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013


async def test_sockets_and_subscriptions_have_bounds(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "SOCKETS_MAX", 1)
    monkeypatch.setattr(module, "CHANNELS_MAX", 2)
    async with daemon.events() as socket:
        with pytest.raises(InvalidStatus) as refused:
            async with daemon.events():
                pass
        assert refused.value.response.status_code == 429
        for channel in "abac":
            await send(socket, "subscribe", channel)
        assert "at most 2" in (await heard(socket, "error"))["data"]["error"]
        await send(socket, "unsubscribe", "a")
        await send(socket, "subscribe", "c")
        await send(socket, "ping")
        await heard(socket, "pong")
        daemon.house.app.hubs.of(daemon.id).publish("e", "c", {})
        await heard(socket, "e")


async def test_n14_the_socket_ends_with_its_sandbox(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    async with daemon.events() as socket:
        await daemon.house.call("DELETE", f"/v1/sessions/{daemon.id}")
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(5):
                await socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
    with pytest.raises(InvalidStatus) as refused:
        async with daemon.events():
            pass
    assert refused.value.response.status_code == 409
    assert not daemon.house.app.hubs.of(daemon.id).listeners


async def test_nothing_is_left_of_a_client_that_went_away(daemon: Daemon) -> None:
    made = await daemon.data("POST", "/terminals", status=201, json={"pty": True})
    async with daemon.events() as socket:
        await send(socket, "subscribe", made["channel"])
        await heard(socket, "terminal:output")
    async with asyncio.timeout(5):
        while any(task.get_name().startswith(("follow ", "events ")) for task in asyncio.all_tasks()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not daemon.house.app.hubs.of(daemon.id).listeners


async def test_w05_a_message_that_is_too_large_ends_its_own_socket_only(daemon: Daemon) -> None:
    async with daemon.events() as other:
        async with daemon.events() as socket:
            await socket.send("x" * (daemon.house.app.settings.server.frame_bytes + 1))
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
        await send(other, "ping")
        await heard(other, "pong")


async def test_messages_are_json_text_whatever_the_client_sends(daemon: Daemon) -> None:
    async with daemon.events(query="?protocol=binary") as socket:
        await socket.send(packed("ping"))
        answer: Any = await socket.recv()
        assert json.loads(answer) == {"type": "pong", "data": {}}
