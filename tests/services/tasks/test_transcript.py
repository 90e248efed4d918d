"""An agent's output as lines: however it is cut into pieces, and whoever read the beginning of it."""

from __future__ import annotations

import random

import pytest

from atoll.agents.base import Outcome, Reader, Said
from atoll.domain.process import Exit
from atoll.services.tasks.transcript import Transcript, bounded
from atoll.sidekick.protocol import STDERR, STDOUT

MOST = 16
TEXT = b"one\ntwo\r\n\nthree is longer than a line may be\n\xff\x00\nlast"
LINES = [b"one", b"two", b"", b"three is longer ", b"than a line may ", b"be", b"\xff\x00", b"last"]


class Heard(Reader):
    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.errors = b""

    @property
    def agent_thread(self) -> str:
        return ""

    def line(self, line: bytes) -> list[Said]:
        self.lines.append(line)
        return [Said("output", {"text": line.hex()})]

    def stderr(self, data: bytes) -> None:
        self.errors += data

    def end(self, exit: Exit | None) -> Outcome:
        return Outcome(True, "")


def read(pieces: list[tuple[int, bytes]], told_to: int = 0) -> tuple[Heard, Transcript, list[tuple[str, int]]]:
    """The reader, the transcript, and what was said with the offset behind each."""
    reader = Heard()
    transcript, at, said = Transcript(reader, told_to, MOST), 0, list[tuple[str, int]]()
    for kind, piece in pieces:
        at += len(piece)
        said += [(one.data["text"], transcript.offset) for one in transcript.feed(kind, piece, at)]
    said += [(one.data["text"], transcript.offset) for one in transcript.rest(at)]
    return reader, transcript, said


def cut(text: bytes, chance: random.Random) -> list[tuple[int, bytes]]:
    """In pieces, with errors in between."""
    pieces: list[tuple[int, bytes]] = []
    while text:
        size = chance.randint(1, 12)
        pieces.append((STDOUT, text[:size]))
        text = text[size:]
        if chance.random() < 0.3:
            pieces.append((STDERR, b"no\n"))
    return pieces


@pytest.mark.parametrize("seed", range(20))
def test_lines_do_not_depend_on_the_pieces_that_they_come_in(seed: int) -> None:
    reader, transcript, _ = read(cut(TEXT, random.Random(seed)))
    assert reader.lines == LINES
    assert transcript.offset == len(TEXT) + len(reader.errors)


@pytest.mark.parametrize("seed", range(20))
def test_whoever_goes_on_from_an_offset_says_the_rest_and_knows_the_whole(seed: int) -> None:
    chance = random.Random(seed)
    pieces = cut(TEXT, chance)
    whole = [text for text, _ in read(pieces)[2]]
    # an offset that a server stored: behind a line, in these pieces
    at, offsets, transcript = 0, [0], Transcript(Heard(), 0, MOST)
    for kind, piece in pieces:
        at += len(piece)
        if transcript.feed(kind, piece, at):
            offsets.append(transcript.offset)
    told_to = chance.choice(offsets)
    before = [text for text, end in said_by(pieces) if end <= told_to]
    reader, _, said = read(pieces, told_to)
    assert reader.lines == LINES
    assert before + [text for text, _ in said] == whole


def said_by(pieces: list[tuple[int, bytes]]) -> list[tuple[str, int]]:
    """Each line with the offset behind it, byte by byte."""
    single = [(kind, piece[at : at + 1]) for kind, piece in pieces for at in range(len(piece))]
    return read(single)[2]


def test_texts_of_an_event_are_bounded_wherever_they_stand() -> None:
    data = {"text": "x" * 20, "changes": [{"path": "y" * 20, "kind": "add"}], "exit_code": 3, "ok": None}
    assert bounded(data, 5) == {
        "text": "xxxxx [cut]",
        "changes": [{"path": "yyyyy [cut]", "kind": "add"}],
        "exit_code": 3,
        "ok": None,
    }
