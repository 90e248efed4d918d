"""A sidekick that lies: whatever it answers, its client ends with one clear error, which keeps no more than it may."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atoll.domain.errors import AtollError, Internal, InvalidInput, NotFound, Unavailable
from atoll.domain.process import Exit, FileEntry, ProcessSpec
from atoll.sidekick import answers
from atoll.sidekick import protocol as wire
from atoll.sidekick.client import SidekickClient

EXIT: dict[str, Any] = {"code": 0, "signal": None, "timed_out": False, "oom_killed": False, "duration_s": 0.1}
STARTED: dict[str, Any] = {"id": "p1", "pid": 7, "offset": 0}
ENTRY: dict[str, Any] = {"name": "f", "kind": "file", "size": 1, "mode": 0o644, "modified_at": 1.5}
PROCESS: dict[str, Any] = {
    "id": "p1",
    "argv": ["true"],
    "pid": 7,
    "tty": False,
    "started_at": 1.5,
    "output_start": 0,
    "output_end": 9,
    "exit": EXIT,
}
ODD: list[Any] = [None, True, -1, 2**70, 1e400, float("nan"), "", "x" * 100_000, "p1\r\nX: y", "\ud800", [], [1], {}]


@asynccontextmanager
async def liar(frames: Iterable[bytes]) -> AsyncIterator[SidekickClient]:
    """The client of a sidekick that answers these frames, whatever it is asked."""

    telling: list[asyncio.Task[Any] | None] = []

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        telling.append(asyncio.current_task())
        await reader.readexactly(wire.HEADER.size)
        try:
            for frame in frames:
                writer.write(frame)
                await writer.drain()
            await reader.read()  # until the client has gone
        except ConnectionError:
            pass
        writer.transport.abort()

    server = await asyncio.start_server(lie, "127.0.0.1", 0)
    try:
        yield SidekickClient(lambda: asyncio.open_connection(*server.sockets[0].getsockname()[:2]))
    finally:
        server.close()
        await asyncio.gather(*(task for task in telling if task is not None), return_exceptions=True)
        await asyncio.sleep(0)


async def fault_of(call: Callable[[SidekickClient], Awaitable[Any]], *frames: bytes) -> AtollError | None:
    """What it raises; only an error of the tree, and no fault of ours, is well."""
    async with liar(frames) as client:
        try:
            await asyncio.wait_for(call(client), 5)
        except AtollError as error:
            assert isinstance(error, (Unavailable, NotFound)), error
            return error
    return None


async def read_whole(client: SidekickClient) -> None:
    _, pieces = await client.read_file("/f")
    async for _ in pieces:
        pass


async def _write(client: SidekickClient) -> int:
    async def nothing() -> AsyncIterator[bytes]:
        for _ in ():
            yield b""

    return await client.write_file("/f", nothing())


RUN = ProcessSpec(("true",))
CALLS: dict[str, tuple[Callable[[SidekickClient], Awaitable[Any]], Callable[[Any], list[bytes]], Any]] = {
    "run": (
        lambda client: client.run(RUN),
        lambda it: [wire.json_frame(wire.RESULT, it), wire.json_frame(wire.EXIT, EXIT)],
        STARTED,
    ),
    "exit": (
        lambda client: client.run(RUN),
        lambda it: [wire.json_frame(wire.RESULT, STARTED), wire.json_frame(wire.EXIT, it)],
        EXIT,
    ),
    "wait": (lambda client: client.wait("p1"), lambda it: [wire.json_frame(wire.RESULT, it)], EXIT),
    "stop": (lambda client: client.stop("p1", 0), lambda it: [wire.json_frame(wire.RESULT, it)], EXIT),
    "stop_all": (lambda client: client.stop_all(0), lambda it: [wire.json_frame(wire.RESULT, {"main": it})], EXIT),
    "processes": (
        lambda client: client.processes(),
        lambda it: [wire.json_frame(wire.RESULT, {"processes": them}) for them in ([it], [])],
        PROCESS,
    ),
    "list": (
        lambda client: client.list_dir("/"),
        lambda it: [wire.json_frame(wire.RESULT, {"entries": them}) for them in ([it], [])],
        ENTRY,
    ),
    "stat": (lambda client: client.stat("/f"), lambda it: [wire.json_frame(wire.RESULT, it)], ENTRY),
    "read": (read_whole, lambda it: [wire.json_frame(wire.RESULT, it), wire.frame(wire.END)], ENTRY),
    "write": (_write, lambda it: [wire.json_frame(wire.RESULT, it)], {"size": 1}),
}


@pytest.mark.parametrize("name", CALLS)
async def test_an_answer_that_is_not_as_it_should_be_is_one_clear_error(name: str) -> None:
    call, frames, good = CALLS[name]
    assert await fault_of(call, *frames(good)) is None
    for odd in ODD:
        if not (name == "stop_all" and odd is None):  # no main process
            assert await fault_of(call, *frames(odd)) is not None, odd
        await fault_of(call, wire.json_frame(wire.RESULT, odd))
        for field in good:
            await fault_of(call, *frames({**good, field: odd}))
    for field in good:
        assert await fault_of(call, *frames({key: value for key, value in good.items() if key != field}))
    for kind in (0, wire.STDIN, wire.RESULT, wire.EXIT, 0xFF):
        assert await fault_of(call, wire.frame(kind, b"\xff"))
        assert await fault_of(call, frames(good)[0], wire.frame(kind, b"\xff")) or len(frames(good)) == 1


@pytest.mark.parametrize(
    "process_id", ["", "p", "p0", "p1 ", "p1\n", "p-1", "q1", "main2", "p" + "1" * 100_000, "P1", "p1"]
)
async def test_a_process_id_that_is_none_goes_nowhere(process_id: str) -> None:
    error = await fault_of(CALLS["run"][0], *CALLS["run"][1]({**STARTED, "id": process_id}))
    assert (error is None) == (process_id == "p1")


@pytest.mark.parametrize(("name", "most"), [("processes", answers.PROCESSES_MAX), ("list", answers.ENTRIES_MAX)])
async def test_an_answer_without_end_is_cut_off(name: str, most: int) -> None:
    call, key, item = CALLS[name][0], "processes" if name == "processes" else "entries", CALLS[name][2]
    piece = wire.json_frame(wire.RESULT, {key: [item] * 500})
    async with liar(itertools.repeat(piece)) as client:
        with pytest.raises(Unavailable, match="more"):
            await asyncio.wait_for(call(client), 30)
    assert await fault_of(call, *[piece] * (most // 500), wire.json_frame(wire.RESULT, {key: []})) is None


async def test_a_told_error_is_shown_short_and_in_printable_words() -> None:
    for told, kind in (("internal", Internal), ("no-such-code", Internal), ("bad_request", InvalidInput)):
        error = answers.error_of(
            {"code": told, "message": "a\ud800b\x1b[2J\r\n" + "x" * 100_000, "field": "f\n" * 1000}
        )
        assert type(error) is kind
        assert error.message.startswith("a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[2J")
        assert len(error.message) <= (200 if kind is Internal else 20_000)
        assert error.message.isprintable()
        json.dumps(error.message, ensure_ascii=False).encode()
        if isinstance(error, InvalidInput):
            assert error.field is not None
            assert len(error.field) <= 64
            assert error.field.isprintable()
    for odd in (*ODD, {"code": "internal"}, {"message": "x"}):
        assert isinstance(answers.error_of(odd), Unavailable)


def test_what_is_as_it_should_be_is_taken_as_it_is() -> None:
    assert answers.exit_of({**EXIT, "code": 137, "signal": 9}) == Exit(137, 9, duration_s=0.1)
    name = "\N{WAVE DASH}" * 85
    assert answers.entry_of({**ENTRY, "name": name, "modified_at": -3}) == FileEntry(name, "file", 1, 0o644, -3)
    (info,) = answers.processes_of({"processes": [{**PROCESS, "id": "main", "exit": None}]})
    assert (info.id, info.argv, info.exit) == ("main", ("true",), None)
