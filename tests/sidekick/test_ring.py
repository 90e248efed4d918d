"""The ring: what follows is read together where it came in small pieces, and never of another stream."""

from __future__ import annotations

from atoll.sidekick.protocol import STDERR, STDOUT
from atoll.sidekick.ring import Ring


def ring(*pieces: tuple[int, bytes], limit: int = 1_000) -> Ring:
    made = Ring(limit)
    for stream, data in pieces:
        made.append(stream, data)
    return made


def all_of(made: Ring, offset: int, limit: int) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    offset = max(offset, made.start)
    while piece := made.read_more(offset, limit):
        found.append(piece)
        offset += len(piece[1])
    return found


def test_small_pieces_are_read_together_up_to_the_limit() -> None:
    made = ring(*((STDOUT, b"%d" % at) for at in range(10)))
    assert all_of(made, 0, 100) == [(STDOUT, b"0123456789")]
    assert all_of(made, 3, 4) == [(STDOUT, b"3456"), (STDOUT, b"789")]
    assert all_of(made, 10, 4) == []


def test_a_larger_piece_is_read_whole_and_from_the_middle_on() -> None:
    made = ring((STDOUT, b"a" * 10), (STDOUT, b"b"))
    assert all_of(made, 0, 4) == [(STDOUT, b"a" * 10), (STDOUT, b"b")]
    assert all_of(made, 8, 4) == [(STDOUT, b"aab")]


def test_another_stream_begins_another_piece() -> None:
    made = ring((STDOUT, b"a"), (STDOUT, b"b"), (STDERR, b"c"), (STDERR, b"d"), (STDOUT, b"e"))
    assert all_of(made, 0, 100) == [(STDOUT, b"ab"), (STDERR, b"cd"), (STDOUT, b"e")]


def test_what_fell_out_is_skipped() -> None:
    made = ring(*((STDOUT, bytes([65 + at]) * 4) for at in range(10)), limit=12)
    assert made.start == 28
    assert all_of(made, 0, 8) == [(STDOUT, b"HHHHIIII"), (STDOUT, b"JJJJ")]
