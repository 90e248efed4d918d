"""Large answers: the same JSON, made as it is taken, beside others' work, and few of one owner at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message

from atoll.domain.errors import QuotaExceeded
from atoll.surfaces.bodies import json_bytes
from atoll.surfaces.sidekick import large
from atoll.surfaces.sidekick.files import CONTENT_BYTES_MAX
from atoll.surfaces.sidekick.large import LargeAnswers, encoded
from tests.surfaces.sidekick.conftest import Daemon

PIECE_BYTES = 6 * large.PIECE_CHARS
NULS = 10 * large.PIECE_CHARS


def gives(value: Any) -> Callable[[], Awaitable[Any]]:
    async def work() -> Any:
        return value

    return work


async def never() -> Message:
    return await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("text", ["\0", '"\\\n', "é", "😀", "\udcff", "\ud83d\ude00"])
@pytest.mark.parametrize("length", [1, large.PIECE_CHARS, large.PIECE_CHARS + 1])
def test_in_pieces_it_is_the_same_json(text: str, length: int) -> None:
    long = (text * length)[: length + 1]
    value = {"a": {}, "b": {"c": long, "é": 1.5, "d": None}, "e": [], "f": [1]}
    assert json.loads(b"".join(encoded(value))) == json.loads(json_bytes(value))
    for count in (0, 1, large.PIECE_ITEMS, large.PIECE_ITEMS + 1):
        items = [{"name": text, "n": number} for number in range(count)]
        assert json.loads(b"".join(encoded({"items": iter(items)}))) == json.loads(json_bytes({"items": items}))


async def test_a_large_answer_is_made_as_it_is_taken_and_others_get_their_turn() -> None:
    turns, sizes = 0, list[int]()

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def send(message: Message) -> None:
        sizes.append(len(message.get("body", b"")))

    text = "\0" * NULS
    answer = await LargeAnswers().answer("alice", gives({"content": text, "data": {"content": text}}))
    beside = asyncio.create_task(other())
    await answer({"type": "http"}, never, send)
    beside.cancel()
    assert sum(sizes) > 2 * 6 * NULS
    assert max(sizes) < PIECE_BYTES + large.PIECE_CHARS
    assert turns >= 2 * NULS / large.PIECE_CHARS


async def test_an_owner_has_few_and_each_place_is_free_when_its_client_has_read_or_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large, "WAIT_S", 0.01)
    answers, read = LargeAnswers(), asyncio.Event()

    async def send(_: Message) -> None:
        await read.wait()

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def breaks() -> Any:
        raise ValueError

    for _ in range(large.HELD_MAX):  # what fails has no place
        with pytest.raises(ValueError):
            await answers.answer("alice", breaks)
    unread = [await answers.answer("alice", gives({})) for _ in range(large.HELD_MAX)]
    with pytest.raises(QuotaExceeded):
        await answers.answer("alice", gives({}))
    bobs = await answers.answer("bob", gives({}))
    left = asyncio.create_task(unread.pop()({"type": "http"}, gone, send))
    await asyncio.wait((left,))
    assert left.exception() is not None
    unread.append(await answers.answer("alice", gives({})))
    read.set()
    for one in (*unread, bobs):
        await one({"type": "http"}, never, send)
    again = [await answers.answer("alice", gives({})) for _ in range(large.HELD_MAX)]
    assert len(again) == large.HELD_MAX


LARGE = large.LARGE_BYTES + 1
ZEROS = "\0" * LARGE
RUN = "cat /tmp/z; cat /tmp/z >&2"


async def test_files_outputs_and_folders_that_are_large_are_told_whole(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.surfaces.sidekick.files.LARGE_ITEMS", 2)
    await daemon.data("POST", "/files", status=201, json={"path": "/tmp/z", "content": ZEROS})
    ran = await daemon.data("POST", "/execute", json={"command": RUN})
    assert (ran["stdout"], ran["stderr"], ran["output"]) == (ZEROS, ZEROS, 2 * ZEROS)
    assert (ran["truncated"], ran["exit_code"]) == (False, 0)
    again = await daemon.data("GET", f"/terminals/run/commands/{ran['cmd_id']}")
    assert again["stdout"][-1:] + again["stderr"][-1:] == "\0\0"
    answer = await daemon.call("GET", "/files//tmp/z?content=true")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["content"] == answer.json()["data"]["content"] == ZEROS
    for name in "abc":
        await daemon.data("POST", "/files", status=201, json={"path": f"/tmp/l/{name}", "content": ""})
    found = await daemon.data("GET", "/files?path=/tmp/l")
    assert [one["path"] for one in found["files"]] == ["/tmp/l/a", "/tmp/l/b", "/tmp/l/c"]


async def test_what_is_large_has_no_place_while_others_of_its_owner_are_not_read(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daemon.data("POST", "/files", status=201, json={"path": "/tmp/z", "content": ZEROS})
    await daemon.data("POST", "/files", status=201, json={"path": "/tmp/a", "content": ""})
    monkeypatch.setattr(large, "HELD_MAX", 0)
    monkeypatch.setattr(large, "WAIT_S", 0.01)
    monkeypatch.setattr("atoll.surfaces.sidekick.files.LARGE_ITEMS", 1)
    for path in ("/files//tmp/z?content=true", "/files?path=/tmp"):
        refused = await daemon.call("GET", path)
        assert (refused.status_code, "are being read" in refused.json()["error"]) == (429, True)
    ran = await daemon.data("POST", "/run/command", json={"command": RUN})  # it has run, and is told so
    assert (ran["truncated"], ran["exit_code"]) == (True, 0)
    assert 0 < len(ran["stdout"]) + len(ran["stderr"]) <= large.LARGE_BYTES


async def test_a_file_that_json_does_not_hold_is_refused_and_says_what_reads_it(daemon: Daemon) -> None:
    made = await daemon.house.call(
        "POST", f"/v1/sessions/{daemon.id}/files?path=/tmp/z", content=bytes(CONTENT_BYTES_MAX + 1)
    )
    assert made.status_code == 201
    refused = await daemon.call("GET", "/files//tmp/z?content=true")
    assert (refused.status_code, f"GET /v1/sessions/{daemon.id}/files?path=" in refused.json()["error"]) == (413, True)
