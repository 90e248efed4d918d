"""Model requests: what is read, what is dropped or refused, and that the rest stays byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.services.models.dialects import Dialect
from atoll.services.models.limits import ModelLimits
from atoll.services.models.refusals import Because, CallRefused
from atoll.services.models.requests import ModelRequest

LIMITS = ModelLimits()


def request(dialect: Dialect, limits: ModelLimits = LIMITS, **body: Any) -> ModelRequest:
    return ModelRequest(dialect, json.dumps({"model": "m", **body}).encode(), limits)


def sent(asked: ModelRequest, bound: int | None = None) -> dict[str, Any]:
    return json.loads(asked.encoded("m", bound))


def refused(dialect: Dialect, **body: Any) -> str | None:
    with pytest.raises(CallRefused) as caught:
        request(dialect, **body)
    assert caught.value.because is Because.REQUEST
    return caught.value.field


def test_what_is_not_changed_stays_byte_for_byte():
    body = b'{"model":"m","input":[ {"a":1.0e2, "b":"\\u00e9"} ],"seed":12345678901234567890}'
    made = ModelRequest(Dialect.RESPONSES, body, LIMITS).encoded("n", 300)
    assert b'[ {"a":1.0e2, "b":"\\u00e9"} ]' in made and b"12345678901234567890" in made
    assert json.loads(made)["model"] == "n" and json.loads(made)["max_output_tokens"] == 300


def test_a_member_that_comes_twice_goes_on_once():
    made = ModelRequest(Dialect.CHAT, b'{"model":"a","model":"b","max_tokens":1,"max_tokens":9}', LIMITS)
    assert (made.model, made.bound) == ("b", 9)
    assert made.encoded("b", 9).count(b"model") == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": 1}', b'{"a": "b"}', b"\xff", b'{"model": ""}', b"null"])
def test_q_what_is_no_request_is_refused(body: bytes):
    with pytest.raises(CallRefused):
        ModelRequest(Dialect.RESPONSES, body, LIMITS)


@pytest.mark.parametrize("bound", [0, -1, "9", 1.5, True, 10**30])
def test_b05_a_bound_that_is_no_number_is_refused(bound: Any):
    assert refused(Dialect.RESPONSES, max_output_tokens=bound) == "max_output_tokens"
    assert refused(Dialect.CHAT, max_completion_tokens=bound) == "max_completion_tokens"
    assert refused(Dialect.MESSAGES, max_tokens=bound) == "max_tokens"


def test_the_bound_is_written_where_the_request_had_it():
    assert sent(request(Dialect.CHAT, max_completion_tokens=9), 5)["max_completion_tokens"] == 5
    assert sent(request(Dialect.CHAT, max_tokens=9), 5)["max_tokens"] == 5
    both = request(Dialect.CHAT, max_tokens=9, max_completion_tokens=7)
    assert both.bound == 7 and sent(both, 7)["max_tokens"] == sent(both, 7)["max_completion_tokens"] == 7
    assert "max_completion_tokens" not in sent(request(Dialect.CHAT), 5)


def test_a_bound_above_the_servers_is_lowered_and_all_choices_count():
    assert request(Dialect.MESSAGES, max_tokens=10**6).output_bound() == 32_000
    asked = request(Dialect.CHAT, n=4, max_tokens=100)
    assert asked.output_bound() == 400 and sent(asked, 400)["max_tokens"] == 100
    assert refused(Dialect.CHAT, n=9) == refused(Dialect.CHAT, n=0) == "n"


def test_thinking_keeps_within_a_lowered_bound():
    thinking = {"type": "enabled", "budget_tokens": 50_000}
    asked = request(Dialect.MESSAGES, max_tokens=64_000, thinking=thinking)
    assert sent(asked, 32_000)["thinking"]["budget_tokens"] == 31_999
    assert "thinking" not in sent(asked, 1_000)


def test_what_lies_at_the_provider_is_out_of_reach():
    for name in ("previous_response_id", "conversation", "prompt"):
        assert refused(Dialect.RESPONSES, **{name: "resp_others"}) == name
    assert refused(Dialect.RESPONSES, background=True) == "background"
    made = sent(request(Dialect.RESPONSES, store=True, previous_response_id=None, background=False))
    assert made == {"model": "m", "store": False}


def test_who_asks_is_not_told():
    told = {"user": "alice", "metadata": {"user_id": "a"}, "safety_identifier": "a", "service_tier": "priority"}
    for dialect in (Dialect.RESPONSES, Dialect.CHAT, Dialect.MESSAGES):
        assert set(sent(request(dialect, **told))) <= {"model", "store"}


def test_what_the_price_table_does_not_know_of_is_left_out_however_it_is_spelled():
    dear = {"speed": "fast", "models": ["dearer"], "preset": "dearer", "MAX_TOKENS": 10**6, "Model": "dearer"}
    dear |= {"modalities": ["audio"], "enable_search": True, "search_parameters": {}, "api_base": "http://x"}
    for dialect in (Dialect.RESPONSES, Dialect.CHAT, Dialect.MESSAGES):
        assert set(sent(request(dialect, **dear))) <= {"model", "store"}


def test_tools_that_run_at_the_provider_are_left_out():
    hosted = [{"type": "web_search"}, {"type": "mcp", "server_url": "http://x"}, {"type": "code_interpreter"}, 7]
    own = {"type": "function", "name": "f"}
    nested = [{"type": "namespace", "tools": [own]}, {"type": "namespace", "tools": [own, hosted[0]]}]
    assert sent(request(Dialect.RESPONSES, tools=[*hosted, own, *nested]))["tools"] == [own, nested[0]]
    assert "tools" not in sent(request(Dialect.RESPONSES, tools=hosted, tool_choice={"type": "web_search"}))
    anthropic = [{"type": "web_search_20250305", "name": "web_search"}, {"name": "Bash"}, {"type": "bash_20250124"}]
    assert sent(request(Dialect.MESSAGES, tools=anthropic, mcp_servers=[{}]))["tools"] == anthropic[1:]
    allowed = ModelLimits(hosted_tools=frozenset({"web_search"}))
    assert sent(request(Dialect.RESPONSES, allowed, tools=hosted))["tools"] == hosted[:1]


FETCHED: list[tuple[Dialect, dict[str, Any]]] = [
    (Dialect.RESPONSES, {"type": "input_image", "image_url": "https://x.example/?leak"}),
    (Dialect.RESPONSES, {"type": "input_file", "file_id": "file-1"}),
    (Dialect.RESPONSES, {"type": "input_file", "file_url": "http://x.example"}),
    (Dialect.RESPONSES, {"type": "item_reference", "id": "msg_1"}),
    (Dialect.CHAT, {"type": "image_url", "image_url": {"url": "HTTPS://x.example"}}),
    (Dialect.CHAT, {"type": "file", "file": {"file_id": "file-1"}}),
    (Dialect.CHAT, {"type": "video_url", "video_url": {"url": "http://169.254.169.254/"}}),
    (Dialect.CHAT, {"image_url": {"url": "http://169.254.169.254/"}}),
    (
        Dialect.RESPONSES,
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "http://x"}},
    ),
    (Dialect.MESSAGES, {"type": "image", "source": {"type": "url", "url": "https://x.example"}}),
    (Dialect.MESSAGES, {"type": "document", "source": {"type": "file", "file_id": "file-1"}}),
    (Dialect.MESSAGES, {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url"}}]}),
]


@pytest.mark.parametrize(("dialect", "part"), FETCHED)
def test_n08_what_the_provider_would_fetch_is_refused(dialect: Dialect, part: dict[str, Any]):
    name = "input" if dialect is Dialect.RESPONSES else "messages"
    body = {name: [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]}
    assert refused(dialect, **body) == name
    assert request(dialect, ModelLimits(remote_content=True), **body)


def test_n08_a_name_that_is_spelled_with_escapes_is_refused_too():
    body = rb'{"model":"m","input":[{"type":"input\u005ffile","file\u005fid":"x"}]}'
    with pytest.raises(CallRefused):
        ModelRequest(Dialect.RESPONSES, body, LIMITS)


def test_images_in_the_request_and_words_about_files_pass():
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    talk = {"type": "function_call_output", "output": '{"file_id": "x", "image_url": "https://y"}'}
    assert request(Dialect.RESPONSES, input=[{"role": "user", "content": [image]}, talk])
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    use = {"type": "tool_use", "name": "t", "input": {"type": "file", "file_id": "own"}}
    content = [{"type": "image", "source": source}, use]
    assert request(Dialect.MESSAGES, messages=[{"role": "user", "content": content}])


MEDIA: list[tuple[Dialect, dict[str, Any], int]] = [
    (Dialect.RESPONSES, {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}, 30_000),
    (Dialect.RESPONSES, {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA"}, 100_000),
    (Dialect.RESPONSES, {"type": "function_call_output", "output": [{"type": "input_image"}]}, 30_000),
    (Dialect.CHAT, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, 30_000),
    (Dialect.CHAT, {"image_url": {"url": "data:image/png;base64,AAAA"}}, 30_000),
    (Dialect.CHAT, {"type": "file", "file": {"file_data": "AAAA"}}, 100_000),
    (Dialect.MESSAGES, {"type": "document", "source": {"type": "base64", "data": "AAAA"}}, 100_000),
    (Dialect.MESSAGES, {"type": "tool_result", "content": [{"type": "image", "source": {"type": "base64"}}]}, 30_000),
    (Dialect.MESSAGES, {"type": "document", "source": {"type": "text", "data": "AAAA"}}, 0),
    (Dialect.MESSAGES, {"type": "tool_use", "name": "t", "input": {"type": "image"}}, 0),
    (Dialect.MESSAGES, {"type": "text", "text": 'see {"type": "image"}'}, 0),
    (Dialect.MESSAGES, {"type": ["image"]}, 0),
]


@pytest.mark.parametrize(("dialect", "part", "least"), MEDIA)
def test_b01_an_image_or_a_document_counts_as_what_it_may_cost(dialect: Dialect, part: dict[str, Any], least: int):
    turns = [{"role": "user", "content": [part, part]}]
    body: dict[str, Any] = {"input" if dialect is Dialect.RESPONSES else "messages": turns}
    found = request(dialect, **body).input_tokens
    assert 2 * least * 0.999 < found < 2 * least + 200


def test_b01_a_large_image_counts_as_its_bytes_and_no_spelling_hides_a_small_one():
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 300_000}
    assert 100_000 < request(Dialect.RESPONSES, input=[{"content": [image]}]).input_tokens < 100_200
    body = rb'{"model":"m","input":[{"type":"input\u005fimage","image_url":"data:,"}]}'
    assert ModelRequest(Dialect.RESPONSES, body, LIMITS).input_tokens > 29_000


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_MEMBERS = ("input", "messages", "tools", "stream", "stream_options", "n", "thinking", "max_tokens", "store", "prompt")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of a machine that is busy
@given(st.dictionaries(st.sampled_from(_MEMBERS), _JSON), st.sampled_from(list(Dialect)), st.integers(1, 9))
def test_q_whatever_a_request_holds_it_is_refused_or_goes_on_as_json(
    body: dict[str, Any], dialect: Dialect, bound: int
):
    try:
        asked = ModelRequest(dialect, json.dumps({"model": "m", **body}).encode(), LIMITS)
    except CallRefused:
        return
    made = json.loads(asked.encoded("n", bound))
    assert made["model"] == "n"
    assert not asked.streamed or made["stream"] is True


@given(st.binary(max_size=80))
def test_q_whatever_a_body_is_it_is_refused_or_read(body: bytes):
    try:
        ModelRequest(Dialect.RESPONSES, body, LIMITS)
    except CallRefused as error:
        assert error.because is Because.REQUEST
