"""Attach and exec over WebSocket, against a client that packs its frames by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

STDIN, STDOUT, STDERR, EXIT, ERROR, CLOSE, RESIZE = range(1, 8)

MALFORMED_JSON = [
    "{", "[]", '"x"', '{"type": "stdin", "data": "%"}', '{"type": "stdin", "data": 5}', "[" * 9999,
    '{"type": "exit", "code": 0}', '{"type": "resize", "cols": true, "rows": 1}',
]  # fmt: skip


def stdin(data: bytes) -> bytes:
    return struct.pack("!BI", STDIN, len(data)) + data


def read(message: bytes | str) -> tuple[int, bytes | int]:
    """(type, payload): the code of an exit, the bytes of all else; checks the layout."""
    assert isinstance(message, bytes)
    kind, number = struct.unpack_from("!BI", message)
    if kind == EXIT:
        assert len(message) == 5
        return kind, number
    assert len(message) == 5 + number
    return kind, message[5:]


async def everything(socket: Any) -> list[tuple[int, Any]]:
    return [read(message) async for message in socket]


@pytest.fixture
async def session(house: Any) -> dict[str, Any]:
    return await house.create(command=["sleep", "600"])


def exec_path(session: Any, *words: str, **more: str) -> str:
    query = "&".join([*(f"cmd={word}" for word in words), *(f"{name}={value}" for name, value in more.items())])
    return f"/v1/sessions/{session['id']}/exec?{query}"


async def test_output_comes_before_the_exit_and_the_exit_before_the_close(house: Any, session: Any) -> None:
    script = "echo%20out%3B%20echo%20err%20%3E%262%3B%20exit%203"
    async with house.socket(exec_path(session, "sh", "-c", script)) as socket:
        found = await everything(socket)
        assert socket.close_code == 1000
    assert found[-1] == (EXIT, 3)
    assert b"".join(data for kind, data in found if kind == STDOUT) == b"out\n"
    assert b"".join(data for kind, data in found if kind == STDERR) == b"err\n"


async def test_one_cmd_is_split_and_several_are_words(house: Any, session: Any) -> None:
    async with house.socket(exec_path(session, "echo%20a%20'b%20c'")) as socket:
        assert (await everything(socket))[0] == (STDOUT, b"a b c\n")
    async with house.socket(exec_path(session, "echo", "a%20b", "'c")) as socket:
        assert (await everything(socket))[0] == (STDOUT, b"a b 'c\n")


async def test_environment_and_directory_reach_the_process(house: Any, session: Any) -> None:
    path = exec_path(session, "sh", "-c", "echo%20$A;pwd", workdir="/tmp") + "&env=A=x%3Dy&env=B=2"
    async with house.socket(path) as socket:
        assert b"".join(data for kind, data in await everything(socket) if kind == STDOUT) == b"x=y\n/tmp\n"


async def test_stdin_goes_in_and_its_close_ends_it(house: Any, session: Any) -> None:
    async with house.socket(exec_path(session, "cat")) as socket:
        await socket.send(stdin(b"one "))
        await socket.send(stdin(b"two"))
        await socket.send(bytes([CLOSE]))
        found = await everything(socket)
    assert b"".join(data for kind, data in found[:-1]) == b"one two"
    assert found[-1] == (EXIT, 0)


async def test_stdin_false_is_an_empty_one(house: Any, session: Any) -> None:
    async with house.socket(exec_path(session, "cat", stdin="false")) as socket:
        assert await everything(socket) == [(EXIT, 0)]


async def test_a_terminal_has_the_size_asked_for_and_takes_another(house: Any, session: Any) -> None:
    async with house.socket(exec_path(session, "sh", tty="true", cols="100", rows="40")) as socket:
        await socket.send(stdin(b"stty\n"))
        seen = await until(socket, b"40 100")
        await socket.send(struct.pack("!BHH", RESIZE, 120, 50))
        await socket.send(stdin(b"stty\nexit 0\n"))
        seen = await until(socket, b"50 120")
    assert b"50 120" in seen


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\x01", b"\x01\0\0\0\x05abc", b"\x01\0\0\0\x01abc", b"\x06\0", b"\x07\0\1", b"\x07\0\0\0\0",
        b"\x02\0\0\0\0", b"\x04\0\0\0\0", b"\xff", b"\x01\xff\xff\xff\xff",
    ],
)  # fmt: skip
async def test_a_malformed_message_is_told_and_the_stream_goes_on(house: Any, session: Any, message: bytes) -> None:
    async with house.socket(exec_path(session, "cat")) as socket:
        await socket.send(message)
        kind, text = read(await socket.recv())
        assert kind == ERROR and b"invalid" in text and len(text) <= 1024
        await socket.send(stdin(b"still here"))
        assert read(await socket.recv()) == (STDOUT, b"still here")
        await socket.send(bytes([CLOSE]))
        assert await everything(socket) == [(EXIT, 0)]


async def test_a_text_frame_is_read_like_a_binary_one(house: Any, session: Any) -> None:
    async with house.socket(exec_path(session, "cat")) as socket:
        await socket.send(stdin(b"typed").decode())
        assert read(await socket.recv()) == (STDOUT, b"typed")


async def test_protocol_json_says_the_same_as_text(house: Any, session: Any) -> None:
    async with house.socket(exec_path(session, "cat", protocol="json")) as socket:
        await socket.send(json.dumps({"type": "stdin", "data": base64.b64encode(b"\xffhi").decode()}))
        first = json.loads(await socket.recv())
        await socket.send('{"type": "resize", "cols": 80, "rows": 24}')
        for wrong in MALFORMED_JSON:
            await socket.send(wrong)
            error = json.loads(await socket.recv())
            assert error["type"] == "error" and b"invalid" in base64.b64decode(error["data"])
        await socket.send('{"type": "stdin_close"}')
        rest = [json.loads(message) async for message in socket]
    assert first["type"] == "stdout" and base64.b64decode(first["data"]) == b"\xffhi"
    assert rest == [{"type": "exit", "code": 0}]


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 400, "cmd"),
        ("cmd=", 400, "cmd"),
        ("cmd='open", 400, "cmd"),
        ("cmd=cat&protocol=morse", 400, "protocol"),
        ("cmd=cat&cols=0&tty=true", 400, "cols"),
        ("cmd=cat&rows=65536", 400, "rows"),
        ("cmd=cat&tty=perhaps", 400, "tty"),
        ("cmd=cat&env=novalue", 400, "env"),
        ("cmd=cat&timeoutMs=0", 400, "timeoutMs"),
        ("cmd=cat&workdir=/no/such", 400, "cwd"),
        ("cmd=a%00b", 400, "cmd"),
    ],
)
async def test_a_wrong_parameter_is_refused_before_the_upgrade(
    house: Any, session: Any, query: str, status: int, field: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with house.socket(f"/v1/sessions/{session['id']}/exec?{query}"):
            pass
    body = json.loads(refused.value.response.body)
    assert (refused.value.response.status_code, body["status"], body["field"]) == (status, status, field)


async def test_a_session_that_does_not_run_is_a_409_before_the_upgrade(house: Any) -> None:
    session = await house.create()
    await house.call("DELETE", f"/v1/sessions/{session['id']}")
    for path in ("exec?cmd=true", "attach"):
        with pytest.raises(InvalidStatus) as refused:
            async with house.socket(f"/v1/sessions/{session['id']}/{path}"):
                pass
        body = json.loads(refused.value.response.body)
        assert (body["status"], body["error"]) == (409, "session not running: status=killed")


async def test_attach_replays_from_an_offset_and_follows(house: Any) -> None:
    session = await house.create(command=["sh"])
    path = f"/v1/sessions/{session['id']}/attach"
    async with house.socket(path) as first:
        assert first.response.headers["Atoll-Process"] == "main"
        await first.send(stdin(b"echo hello\n"))
        assert await until(first, b"hello\n") == b"hello\n"
    async with house.socket(path + "?offset=2") as second:  # the first went away without a word
        assert second.response.headers["Atoll-Offset"] == "2"
        assert await until(second, b"llo\n") == b"llo\n"
        await second.send(stdin(b"echo again; exit 4\n"))
        found = await everything(second)
    assert found == [(STDOUT, b"again\n"), (EXIT, 4)]


async def test_w10_two_clients_each_get_all_of_it_and_the_exit_once(house: Any) -> None:
    session = await house.create(command=["sh"])
    path = f"/v1/sessions/{session['id']}/attach"
    async with house.socket(path) as one, house.socket(path) as two:
        await one.send(stdin(b"echo both\n"))
        assert await until(two, b"both\n") == b"both\n"
        await two.send(stdin(b"exit 5\n"))
        both = [await everything(one), await everything(two)]
    assert [found[-1] for found in both] == [(EXIT, 5), (EXIT, 5)]
    assert all(sum(kind == EXIT for kind, _ in found) == 1 for found in both)


async def test_attach_after_the_end_replays_the_log_and_the_exit(house: Any) -> None:
    session = await house.create(command=["sh", "-c", "echo gone; exit 6"])
    path = f"/v1/sessions/{session['id']}"
    for _ in range(200):
        if (await house.call("GET", path)).json()["status"] == "stopped":
            break
        await asyncio.sleep(0.01)
    async with house.socket(path + "/attach") as socket:
        assert await everything(socket) == [(STDOUT, b"gone\n"), (EXIT, 6)]


async def test_a_process_outlives_its_client_and_is_found_again(house: Any, session: Any) -> None:
    async with house.socket(exec_path(session, "cat")) as socket:
        process_id = socket.response.headers["Atoll-Process"]
        await socket.send(stdin(b"kept"))
        await until(socket, b"kept")
    path = f"/v1/sessions/{session['id']}/attach?process={process_id}"
    async with house.socket(path) as again:
        assert read(await again.recv()) == (STDOUT, b"kept")
        await again.send(bytes([CLOSE]))
        assert await everything(again) == [(EXIT, 0)]


async def test_attaching_to_an_unknown_process_is_a_404(house: Any, session: Any) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with house.socket(f"/v1/sessions/{session['id']}/attach?process=p99"):
            pass
    assert refused.value.response.status_code == 404


async def test_l09_a_session_killed_under_a_stream_closes_it_with_a_reason(house: Any, session: Any) -> None:
    async with house.socket(exec_path(session, "cat")) as socket:
        await house.call("DELETE", f"/v1/sessions/{session['id']}")
        found = await everything(socket)
        assert socket.close_code in (1000, 1001)
    assert found and found[-1][0] in (EXIT, ERROR)


async def test_l04_a_process_that_reads_no_stdin_holds_the_client_and_not_memory(house: Any, session: Any) -> None:
    socket = await house.socket(exec_path(session, "sleep", "600"), ping_interval=None)
    process_id = socket.response.headers["Atoll-Process"]
    sent = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            while True:
                await socket.send(stdin(b"x" * 65_536))
                sent += 65_536
    assert sent < 32 * 2**20  # socket buffers and the sidekick's, no more
    socket.transport.abort()
    where = f"/v1/sessions/{session['id']}/processes/{process_id}/signal"
    assert (await house.call("POST", where, json={"signal": "KILL"})).status_code == 200


async def test_r08_a_client_that_does_not_read_holds_the_process_and_not_memory(house: Any, session: Any) -> None:
    async with house.socket(exec_path(session, "flood", "200000000"), max_queue=1, ping_interval=None) as socket:
        await asyncio.sleep(1)
        listed = (await house.call("GET", f"/v1/sessions/{session['id']}/processes")).json()["processes"]
        flood = next(info for info in listed if info["id"] == socket.response.headers["Atoll-Process"])
        received = sum([len(data) for _, data in [read(await socket.recv()) for _ in range(5)]])
        assert received > 0
        assert flood["outputEnd"] < 200_000_000 or not flood["running"]
        socket.transport.abort()


async def test_client_disconnects_leave_no_task_behind(house: Any, session: Any) -> None:
    before = len(asyncio.all_tasks())
    for _ in range(20):
        socket = await house.socket(exec_path(session, "cat"), close_timeout=0.1)
        await socket.send(stdin(b"x"))
        socket.transport.abort()  # no close frame
    for _ in range(200):
        left = [task for task in asyncio.all_tasks() if "fake" not in task.get_name()]
        if len(left) <= before + 1:
            break
        await asyncio.sleep(0.02)
    assert len(left) <= before + 1


async def until(socket: Any, wanted: bytes) -> bytes:
    """The output up to and including `wanted`."""
    seen = b""
    async with asyncio.timeout(5):
        while wanted not in seen:
            try:
                kind, data = read(await socket.recv())
            except ConnectionClosed:
                break
            if kind in (STDOUT, STDERR):
                assert isinstance(data, bytes)
                seen += data
    return seen
