"""Meter: what of a provider's answer counts, whatever it says, and what of it the program gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.price import TokenUse
from atoll.services.models import meter as meters
from atoll.services.models.dialects import Dialect
from atoll.services.models.meter import Meter, StreamMeter, meter_of

ASKED = 100


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def fed(meter: Meter, data: bytes, size: int = 7) -> bytes:
    """All that comes out when it comes in small pieces."""
    passed = b"".join(meter.feed(data[at : at + size]) for at in range(0, len(data), size))
    return passed + meter.end()


def completed(**usage: Any) -> bytes:
    return event({"type": "response.completed", "response": {"usage": usage}})


def streamed(dialect: Dialect, data: bytes) -> TokenUse:
    meter = meter_of(dialect, streamed=True, hide_usage=False)
    assert fed(meter, data) == data
    return meter.tokens(ASKED)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1, "output_tokens": 5},
        {"input_tokens": "12", "output_tokens": "5"},
        {"input_tokens": 10**12, "output_tokens": 10**12},
        {"input_tokens": 1.5, "output_tokens": float("1e3")},
        {"input_tokens": True, "output_tokens": None},
        {},
    ],
)
def test_b05_what_is_no_number_of_tokens_is_none_and_the_rest_is_estimated(usage: dict[str, Any]):
    said = event({"type": "response.output_text.delta", "delta": "x" * 30})
    tokens = streamed(Dialect.RESPONSES, said + completed(**usage))
    assert tokens.estimated and tokens.input == 100 and tokens.output in (5, 10)


def test_a_null_a_list_and_a_text_in_place_of_usage_are_none():
    for usage in (None, [1], "many", 7):
        data = event({"type": "response.completed", "response": {"usage": usage}})
        assert streamed(Dialect.RESPONSES, data) == TokenUse(100, 0, estimated=True)
    assert streamed(Dialect.RESPONSES, event({"type": "response.completed", "response": []})).estimated


def test_of_two_usages_the_larger_numbers_hold():
    data = completed(input_tokens=10, output_tokens=7) + completed(input_tokens=12, output_tokens=5)
    assert streamed(Dialect.RESPONSES, data) == TokenUse(12, 7)


def test_cached_and_reasoning_tokens_are_never_more_than_the_whole():
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 99},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 99},
    }
    assert streamed(Dialect.RESPONSES, completed(**usage)) == TokenUse(10, 5, 10, 5)


def test_the_caches_of_messages_are_input():
    start = {"usage": {"input_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 7}}
    data = event({"type": "message_start", "message": start})
    data += event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}})
    assert streamed(Dialect.MESSAGES, data) == TokenUse(50, 9, 40)


def test_a_stream_that_breaks_off_has_the_input_that_it_told_and_an_estimate_of_the_rest():
    start = {"usage": {"input_tokens": 50, "output_tokens": 1}}
    data = event({"type": "message_start", "message": start})
    data += event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * 30}})
    assert streamed(Dialect.MESSAGES, data) == TokenUse(50, 10, estimated=True)


def test_a_tool_that_prints_usage_is_no_usage():
    said = json.dumps({"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 1}}})
    data = event({"type": "response.output_text.delta", "delta": "\ndata: " + said + "\n\n"})
    assert streamed(Dialect.RESPONSES, data).estimated


def test_only_the_last_of_a_response_is_its_usage():
    data = event({"type": "response.created", "response": {"usage": {"input_tokens": 1, "output_tokens": 1}}})
    assert streamed(Dialect.RESPONSES, data).estimated


def test_a_line_without_an_end_passes_and_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(meters, "LINE_BYTES_MAX", 1_000)
    meter = StreamMeter(Dialect.CHAT, hide_usage=True)
    endless = b'data: {"usage": ' + b"x" * 5_000
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert fed(meter, endless + b"\n\n" + usage) == endless + b"\n\n"
    assert meter.tokens(ASKED) == TokenUse(3, 2)


def test_usage_at_the_last_word_of_a_chat_counts_too():
    word = {"choices": [{"delta": {"content": "a"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    meter = StreamMeter(Dialect.CHAT, hide_usage=True)
    data = event(word) + event(b"[DONE]")
    assert fed(meter, data) == data and meter.over
    assert meter.tokens(ASKED) == TokenUse(3, 2)


def test_deep_json_is_no_fault():
    deep = b'{"usage": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert streamed(Dialect.CHAT, event(deep)).estimated
    meter = meter_of(Dialect.CHAT, streamed=False, hide_usage=False)
    assert fed(meter, deep, 65_536) == deep and meter.tokens(ASKED).estimated


@given(st.lists(st.binary(max_size=60), max_size=12), st.integers(1, 40))
def test_any_bytes_pass_as_they_are(pieces: list[bytes], size: int):
    data = b"\r\n".join(pieces) + b'data: {"usage": {"prompt_tokens": 1}}'
    for dialect in (Dialect.RESPONSES, Dialect.CHAT, Dialect.MESSAGES):
        for streams in (True, False):
            assert fed(meter_of(dialect, streamed=streams, hide_usage=False), data, size) == data
    hiding = StreamMeter(Dialect.CHAT, hide_usage=True)
    assert fed(hiding, data, size) == data
