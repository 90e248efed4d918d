"""Idempotency between servers on one store: what one began, another answers for, or says what it knows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from atoll.domain.errors import Corrupt
from atoll.domain.key import DEFAULT_SCOPES, KeyKind
from atoll.domain.principal import Principal
from atoll.services.idempotency import Idempotency, Undecided, UnderWay
from atoll.testing.memory_records import MemoryRecords

ALICE = Principal("key_a11ce0000000", KeyKind.STANDARD, DEFAULT_SCOPES)
PRINT = "f" * 64


class Servers:
    def __init__(self, *, shared: bool) -> None:
        self.records, self.now = MemoryRecords(), datetime(2026, 3, 1, tzinfo=UTC)
        self.one, self.two = (Idempotency(self.records, shared=shared, clock=lambda: self.now) for _ in range(2))


async def test_another_server_waits_for_an_answer_for_a_minute_and_repeats_it() -> None:
    servers = Servers(shared=True)
    begun, _ = await servers.one.begin(ALICE, "k", PRINT)
    with pytest.raises(UnderWay) as raised:
        await servers.two.begin(ALICE, "k", PRINT)
    assert raised.value.retry_after_s == 1
    await servers.one.finish(begun, "k", b"answer")
    assert (await servers.two.begin(ALICE, "k", PRINT))[1] == b"answer"
    await servers.one.begin(ALICE, "cut", PRINT)
    servers.now += timedelta(seconds=61)
    with pytest.raises(Undecided):
        await servers.two.begin(ALICE, "cut", PRINT)


async def test_where_there_is_one_server_what_an_earlier_life_began_was_cut_short() -> None:
    servers = Servers(shared=False)
    await servers.one.begin(ALICE, "k", PRINT)
    with pytest.raises(Undecided, match="cut short when its server ended"):
        await servers.two.begin(ALICE, "k", PRINT)


async def test_an_answer_that_was_changed_in_the_records_is_not_repeated() -> None:
    servers = Servers(shared=False)
    begun, _ = await servers.one.begin(ALICE, "k", PRINT)
    await servers.one.finish(begun, "k", b"answer")
    [(place, stored)] = servers.records._idempotent.items()
    assert stored.answer is not None
    flipped = stored.answer[:-1] + bytes([stored.answer[-1] ^ 1])
    servers.records._idempotent[place] = replace(stored, answer=flipped)
    with pytest.raises(Corrupt):
        await servers.one.begin(ALICE, "k", PRINT)
