"""Terminals: one shell for one name, whoever asks first and however often; what it wrote is replayed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, QuotaExceeded
from atoll.services.terminals import Terminals
from atoll.sidekick.client import ProcessStream

from .conftest import ALICE, BOB, READER, House, until


async def reads(stream: ProcessStream, text: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(3):
        async for _, data in stream:
            seen += data
            if text in seen:
                return seen
    raise AssertionError(seen)


async def test_who_opens_one_name_again_finds_the_same_shell_with_what_it_wrote(house: House) -> None:
    sandbox = await house.create()
    terminals = Terminals(house.sandboxes)
    first, second = await asyncio.gather(*(terminals.open(ALICE, sandbox.id) for _ in range(2)))
    assert first.id == second.id
    await first.write_stdin(b"echo o''ne\r")
    assert b"\r\none\r\n" in await reads(second, b"\r\none\r\n")
    await house.restart()
    terminals = Terminals(house.sandboxes)
    again = await terminals.open(ALICE, sandbox.id, cols=100, rows=40)
    assert again.id == first.id
    assert b"\r\none\r\n" in await reads(again, b"\r\none\r\n")
    await again.write_stdin(b"stty\r")
    assert b"40 100" in await reads(again, b"40 100")
    later = await terminals.open(ALICE, sandbox.id, offset=again.offset)
    assert later.first_offset == again.offset
    other = await terminals.open(ALICE, sandbox.id, "other")
    assert other.id != first.id
    assert [one.name for one in await terminals.list(READER, sandbox.id)] == ["default", "other"]


async def test_a_terminal_that_ended_is_told_to_whom_comes_back_and_is_new_to_others(house: House) -> None:
    sandbox = await house.create()
    terminals = Terminals(house.sandboxes)
    first = await terminals.open(ALICE, sandbox.id)
    await reads(first, b"$ ")
    offset = first.offset
    await first.write_stdin(b"exit 7\r")
    await until(lambda: house.host.sandboxes[sandbox.id].processes[first.id].exit)
    back = await terminals.open(ALICE, sandbox.id, offset=offset)
    assert back.id == first.id
    assert [data async for _, data in back] == [b"exit 7\r\n"]
    assert back.exit is not None
    assert back.exit.code == 7
    fresh = await terminals.open(ALICE, sandbox.id)
    assert fresh.id != first.id
    assert (await terminals.close(ALICE, sandbox.id, "default")).code == 143
    with pytest.raises(NotFound, match="terminal not found"):
        await terminals.close(ALICE, sandbox.id, "default")


async def test_what_a_terminal_may_be_called_and_how_many_there_may_be(house: House) -> None:
    house.limits = replace(house.limits, terminals_per_sandbox=1)
    await house.restart()
    sandbox = await house.create()
    terminals = Terminals(house.sandboxes)
    for name in ("", "a/b", "x" * 65, "ü", "a\n", "-a"):
        with pytest.raises(InvalidInput) as bad:
            await terminals.open(ALICE, sandbox.id, name)
        assert bad.value.field == "terminal"
    with pytest.raises(InvalidInput, match="offset"):
        await terminals.open(ALICE, sandbox.id, offset=-1)
    await terminals.open(ALICE, sandbox.id, "one")
    with pytest.raises(QuotaExceeded, match="1 terminals"):
        await terminals.open(ALICE, sandbox.id, "two")


async def test_no_more_are_opened_at_once_than_there_may_be(house: House) -> None:
    house.limits = replace(house.limits, terminals_per_sandbox=2)
    await house.restart()
    sandbox = await house.create()
    terminals = Terminals(house.sandboxes)
    opened = await asyncio.gather(*(terminals.open(ALICE, sandbox.id, name) for name in "abcd"), return_exceptions=True)
    assert sum(isinstance(one, QuotaExceeded) for one in opened) == 2
    assert len(house.host.sandboxes[sandbox.id].processes) == 2


async def test_a_terminal_that_cannot_be_sized_is_let_go_of(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await house.create()
    terminals = Terminals(house.sandboxes)
    first = await terminals.open(ALICE, sandbox.id)
    closed: list[str] = []
    whole = type(first).close

    async def fails(stream: ProcessStream, cols: int, rows: int) -> None:
        raise NotFound(f"{cols}x{rows}")

    async def closes(stream: ProcessStream) -> None:
        closed.append(stream.id)
        await whole(stream)

    monkeypatch.setattr(type(first), "resize", fails)
    monkeypatch.setattr(type(first), "close", closes)
    with pytest.raises(NotFound, match="90x30"):
        await terminals.open(ALICE, sandbox.id, cols=90, rows=30)
    assert closed == [first.id]


async def test_only_who_may_execute_opens_and_others_find_nothing(house: House) -> None:
    sandbox = await house.create()
    terminals = Terminals(house.sandboxes)
    with pytest.raises(Forbidden):
        await terminals.open(READER, sandbox.id)
    for call in (terminals.open(BOB, sandbox.id), terminals.list(BOB, sandbox.id)):
        with pytest.raises(NotFound, match="session not found"):
            await call
    with pytest.raises(NotFound, match="session not found"):
        await terminals.close(BOB, sandbox.id, "default")
    assert not house.host.sandboxes[sandbox.id].processes
