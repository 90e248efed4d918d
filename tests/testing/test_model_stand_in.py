"""The stand-in model: scripts of a prompt become the providers' own forms, a turn for each result of a tool."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from atoll.testing.model_stand_in import ModelStandIn

SHELL = {"type": "object", "properties": {"cmd": {"type": "string"}}}
SCRIPT = "Please do this.\nrun: echo hi\nusage: input=100 output=7 cached=40\nsay: it said {result}"
ASKED: dict[str, dict[str, Any]] = {
    "/v1/responses": {
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": SCRIPT}]}],
        "tools": [{"type": "function", "name": "exec_command", "parameters": SHELL}],
    },
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": SCRIPT}],
        "tools": [{"type": "function", "function": {"name": "exec_command", "parameters": SHELL}}],
    },
    "/v1/messages": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": SCRIPT}]}],
        "tools": [{"name": "exec_command", "input_schema": SHELL}],
    },
}
RESULT: dict[str, dict[str, Any]] = {
    "/v1/responses": {"type": "function_call_output", "call_id": "c", "output": "hi"},
    "/v1/chat/completions": {"role": "tool", "tool_call_id": "c", "content": "hi"},
    "/v1/messages": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "hi"}]},
}


def _after(path: str) -> dict[str, Any]:
    """The same, once the tool has answered."""
    asked = ASKED[path]
    name = "input" if "input" in asked else "messages"
    return {**asked, name: [*asked[name], RESULT[path]]}


async def _ask(model: ModelStandIn, path: str, body: dict[str, Any]) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=model.url, trust_env=False) as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_script_goes_on_with_each_result(path: str, stream: bool):
    async with ModelStandIn() as model:
        first = await _ask(model, path, {"model": "m", "stream": stream, **ASKED[path]})
        second = await _ask(
            model, path, {"model": "m", "stream": stream, "stream_options": {"include_usage": True}, **_after(path)}
        )
    assert "echo hi" in first.text and "said" not in first.text
    assert "said" in second.text and "echo hi" not in second.text
    assert "40" in second.text and len(model.log) == 2


async def test_the_events_of_responses_are_those_that_codex_reads():
    async with ModelStandIn() as model:
        answer = await _ask(model, "/v1/responses", {"stream": True, **_after("/v1/responses")})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [one["sequence_number"] for one in events] == list(range(len(events)))
    kinds = [one["type"] for one in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    usage = events[-1]["response"]["usage"]
    assert usage["input_tokens"] == 100 and usage["input_tokens_details"]["cached_tokens"] == 40
    (item,) = [one["item"] for one in events if one["type"] == "response.output_item.done"]
    assert item["content"][0]["text"] == "it said hi"


async def test_cached_tokens_of_messages_are_beside_the_input():
    async with ModelStandIn() as model:
        answer = (await _ask(model, "/v1/messages", _after("/v1/messages"))).json()
    assert (answer["usage"]["input_tokens"], answer["usage"]["cache_read_input_tokens"]) == (60, 40)


async def test_errors_breaks_and_plain_prompts():
    async with ModelStandIn(key="right") as model:
        assert (await _ask(model, "/v1/responses", {"input": "hello"})).status_code == 401
    async with ModelStandIn() as model:
        refused = await _ask(model, "/v1/messages", {"messages": [{"role": "user", "content": "error: 429 slowly"}]})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
        assert refused.json()["error"]["message"] == "slowly"
        with pytest.raises(httpx2.RemoteProtocolError):
            await _ask(model, "/v1/responses", {"input": "say: a\nbreak", "stream": True})
        ended = await _ask(model, "/v1/responses", {"input": "say: a\nend", "stream": True})
        assert "response.completed" not in ended.text
        assert "stand-in model, not a real one" in (await _ask(model, "/v1/responses", {"input": "hello"})).text
