from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.errors import TooLarge
from atoll.sdk import sse
from atoll.sdk.sse import EventReader, ServerEvent

STREAM = (
    ": a comment\n\nretry: 1000\n\nid: 1\nevent: message\ndata: {}\n\n"
    "id: 2\r\nevent: command\r\ndata: first\r\ndata: sécond\r\n\r\ndata:without an id\n\n"
    "event: nothing\n\nid: 3\ndata: cut"
).encode()
EVENTS = [
    ServerEvent("1", "message", "{}"),
    ServerEvent("2", "command", "first\nsécond"),
    ServerEvent("2", "message", "without an id"),
]


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=20))
def test_events_are_the_same_however_the_bytes_come(cuts: list[int]) -> None:
    reader = EventReader()
    at, found = 0, []
    for cut in [*sorted(cuts), len(STREAM)]:
        found += reader.feed(STREAM[at:cut])
        at = cut
    assert found == EVENTS


@given(st.binary(max_size=2_000))
def test_whatever_comes_is_no_error(data: bytes) -> None:
    for event in EventReader().feed(data):
        assert event.data is not None


def test_an_event_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 1_000)
    for line in (
        b"x" * 100,
        b"data: " + b"x" * 94 + b"\n",
        b"data:\n" * 100,
        (b"data: " + b"x" * 94 + b"\n") * 20 + b"\n",
    ):
        reader = EventReader()
        with pytest.raises(TooLarge):
            for _ in range(20):
                list(reader.feed(line))
