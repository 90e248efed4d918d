"""Questions for names and the addresses that they are answered with, without a sandbox."""

from __future__ import annotations

import asyncio
import socket
import time

import dns.flags
import dns.message
import dns.rcode
import pytest

from atoll.domain.egress import allow_list
from atoll.domain.errors import Unavailable
from atoll.gateway.allowance import EgressSpent
from atoll.gateway.pace import Pace
from atoll.gateway.questions import Questions, Turn, unpaced
from atoll.gateway.synthetic import NAMES_MAX, RANGE, SyntheticNames
from tests.gateway.conftest import Internet

ALLOW = allow_list(["good.example", "*.parent.example"])


async def ask(internet: Internet, name: str, kind: str = "A") -> dns.message.Message:
    names = SyntheticNames("sess_1", ["good.example"])
    answer = await Questions(internet).answer(dns.message.make_query(name, kind).to_wire(), ALLOW, names)
    assert answer is not None
    return dns.message.from_wire(answer)


async def test_allowed_names_have_a_synthetic_address_and_others_do_not_exist(internet: Internet) -> None:
    internet.names |= {"good.example": ["93.184.216.34"], "bad.example": ["93.184.216.34"]}
    told = await ask(internet, "GOOD.example.")
    assert told.rcode() == dns.rcode.NOERROR
    assert told.answer[0][0].to_text().startswith(("198.18.", "198.19."))
    for name in ("bad.example", "parent.example", "good.example.evil.example", "unknown.parent.example"):
        assert (await ask(internet, name)).rcode() == dns.rcode.NXDOMAIN, name
    assert "bad.example" not in internet.asked  # what is not on the list is not asked of anybody


@pytest.mark.parametrize("kind", ["AAAA", "HTTPS", "TXT", "MX", "SRV", "NS", "ANY"])
async def test_nothing_but_ipv4_is_told(internet: Internet, kind: str) -> None:
    internet.names["good.example"] = ["93.184.216.34"]
    told = await ask(internet, "good.example", kind)
    assert told.rcode() == dns.rcode.NOERROR and not told.answer


async def test_a_name_server_that_is_away_is_no_answer(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(name: str) -> list[object]:
        raise Unavailable(name)

    monkeypatch.setattr(internet, "resolve", away)
    assert (await ask(internet, "good.example")).rcode() == dns.rcode.SERVFAIL


async def test_what_is_no_question_is_not_answered(internet: Internet) -> None:
    questions, names = Questions(internet), SyntheticNames("sess_1")
    answer = dns.message.make_query("good.example", "A")
    answer.flags |= dns.flags.QR
    for words in (b"", b"x", bytes(11), bytes(12)[:2] + b"\xff" * 300, answer.to_wire()):
        assert await questions.answer(words, ALLOW, names) in (None, b"") or words == b""


def wire(name: bytes, *, questions: int = 1, records: int = 0) -> bytes:
    """A message about one name, which every question and record repeats by a pointer."""
    head = dns.message.make_query("x", "A").to_wire()[:4]
    counts = questions.to_bytes(2, "big") + records.to_bytes(2, "big") + bytes(4)
    more = b"\xc0\x0c\0\1\0\1" * (questions - 1) + b"\xc0\x0c\0\2\0\1\0\0\0\0\0\2\xc0\x0c" * records
    return head + counts + name + b"\0\1\0\1" + more


async def test_a_message_that_takes_long_to_read_is_not_read(internet: Internet) -> None:
    internet.names["good.example"] = ["93.184.216.34"]
    questions, names = Questions(internet), SyntheticNames("sess_1")
    good, long = b"\4good\7example\0", b"\1a" * 120 + b"\0"
    begun = time.monotonic()
    assert await questions.answer(wire(good, records=4600), ALLOW, names)
    for words in (wire(long, records=4500), wire(long), wire(good, questions=10_000), wire(good, questions=0)):
        assert await questions.answer(words, ALLOW, names) is None
    assert time.monotonic() - begun < 0.5


async def test_a_question_is_answered_by_the_list_of_that_moment(internet: Internet) -> None:
    internet.names |= {"good.example": ["93.184.216.34"], "new.example": ["93.184.216.34"]}
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    lists = iter([["good.example"], ["new.example"]])
    served = await asyncio.open_connection(sock=theirs)
    serving = asyncio.create_task(
        Questions(internet).serve(*served, lambda: allow_list(next(lists)), SyntheticNames("sess_1"))
    )
    for rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        question = dns.message.make_query("good.example", "A").to_wire()
        writer.write(len(question).to_bytes(2, "big") + question)
        async with asyncio.timeout(5):
            size = int.from_bytes(await reader.readexactly(2), "big")
            assert dns.message.from_wire(await reader.readexactly(size)).rcode() == rcode
    writer.close()
    await serving
    served[1].close()


async def served(questions: Questions, asked: bytes, turn: Turn = unpaced) -> bytes:
    """What is answered to questions that lie there already."""
    reader = asyncio.StreamReader()
    reader.feed_data(asked)
    reader.feed_eof()
    ours, theirs = [await asyncio.open_connection(sock=sock) for sock in socket.socketpair()]
    answers = asyncio.create_task(ours[0].read())
    await questions.serve(reader, theirs[1], lambda: ALLOW, SyntheticNames("sess_1"), turn=turn)
    for _, writer in (theirs, ours):
        writer.close()
        await writer.wait_closed()
    return await answers


async def test_between_questions_that_lie_there_others_have_their_turn(internet: Internet) -> None:
    question = dns.message.make_query("bad.example", "A").to_wire()
    turns, over = 0, False

    async def others() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    answers = await served(Questions(internet), (len(question).to_bytes(2, "big") + question) * 100)
    over = True
    await running
    assert len(answers) >= 100 * len(question) and turns >= 100


async def test_questions_wait_for_their_turn_and_without_one_nothing_is_looked_up(internet: Internet) -> None:
    question = dns.message.make_query("good.example", "A").to_wire()
    left = 3

    async def turn() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError

    asked = (len(question).to_bytes(2, "big") + question) * 10
    await served(Questions(internet), asked, turn=turn)
    assert internet.asked == ["good.example"] * 3


async def test_a_pace_lets_some_through_at_once_and_the_others_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, slept, sleep = 0.0, list[float](), asyncio.sleep

    async def pass_time(seconds: float) -> None:
        nonlocal now
        slept.append(round(seconds, 6))
        now += seconds
        await sleep(0)

    monkeypatch.setattr("atoll.gateway.pace.asyncio.sleep", pass_time)
    pace = Pace(10, 5, monotonic=lambda: now)
    await asyncio.gather(*(pace.turn() for _ in range(8)))
    assert slept == [0.0] * 5 + [0.1] * 3
    now += 0.2
    slept.clear()
    await asyncio.gather(*(pace.turn() for _ in range(3)))
    assert slept == [0.0, 0.0, 0.1]
    now += 3600
    slept.clear()
    await asyncio.gather(*(pace.turn() for _ in range(6)))
    assert slept == [0.0] * 5 + [0.1]


async def test_who_leaves_the_line_keeps_nobody_from_their_turn() -> None:
    pace = Pace(20, 1)
    await pace.turn()
    leaving = [asyncio.create_task(pace.turn()) for _ in range(1000)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    async with asyncio.timeout(10):
        await pace.turn()


async def test_what_a_question_tells_a_zone_counts_and_is_not_told_beyond_the_quota(internet: Internet) -> None:
    internet.names |= {"good.example": ["93.184.216.34"]}
    told: list[int] = []

    async def sent(size: int) -> None:
        if told:
            raise EgressSpent("the quota is used up")
        told.append(size)

    questions, names = Questions(internet), SyntheticNames("sess_1")
    refused, passed = (dns.message.make_query(name, "A").to_wire() for name in ("bad.example", "good.example"))
    assert await questions.answer(refused, ALLOW, names, sent) and told == []
    assert await questions.answer(passed, ALLOW, names, sent) and told == [len(passed)]
    with pytest.raises(EgressSpent):
        await questions.answer(passed, ALLOW, names, sent)


def test_an_address_means_the_same_after_a_restart_and_something_else_in_another_sandbox() -> None:
    first = SyntheticNames("sess_1", ["good.example"])
    again = SyntheticNames("sess_1", ["other.example"])
    other = SyntheticNames("sess_2", ["good.example"])
    address = first.address_of("good.example")
    assert address in RANGE and again.address_of("good.example") == address != other.address_of("good.example")
    assert first.name_of(address) == "good.example" and first.name_of(RANGE.broadcast_address) is None


def test_names_are_bounded_and_no_two_share_an_address() -> None:
    names = SyntheticNames("sess_1")
    given = [names.address_of(f"n{number}.example") for number in range(NAMES_MAX)]
    assert len(set(given)) == NAMES_MAX
    names.address_of("one.more")
    assert names.name_of(given[0]) is None and names.name_of(given[1]) == "n1.example"
