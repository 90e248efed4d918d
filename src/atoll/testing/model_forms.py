"""Forms of the stand-in model: a turn as the events of Responses, Chat Completions and Messages, and as one body.

Each form reads a request into a conversation and the tools on offer, and makes the events that a provider sends.
"""

from __future__ import annotations

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from atoll.testing.model_scripts import CALLS, Said, Step, Tool, Turn

CLOCK = "{clock}"  # a word that becomes the time at which it is said
SHELLS = ("exec_command", "shell", "Bash", "bash", "execute_bash", "shell_command")


@dataclass(frozen=True, slots=True)
class Event:
    """One of a stream. `name` "" is a line of data alone."""

    name: str
    data: Any

    def encoded(self) -> bytes:
        text = self.data if isinstance(self.data, str) else json.dumps(self.data)
        return (f"event: {self.name}\n" if self.name else "").encode() + f"data: {text}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that the model wants to have called."""

    id: str
    name: str
    arguments: str  # JSON


class Form(ABC):
    """One way of asking, for one request. `made` is the stream; a Step in it is for the server to act on."""

    def __init__(self, body: Mapping[str, Any], size: int) -> None:
        self.body = body
        self.size = size  # of the request, in bytes
        self.model = str(body.get("model") or "stand-in")
        self.streamed = body.get("stream") is True

    @abstractmethod
    def conversation(self) -> list[Said]: ...

    @abstractmethod
    def tools(self) -> list[Tool]: ...

    @abstractmethod
    def events(self, turn: Turn) -> Iterator[Event | Step]: ...

    @abstractmethod
    def whole(self, turn: Turn) -> dict[str, Any]: ...

    @staticmethod
    @abstractmethod
    def error(status: int, message: str) -> dict[str, Any]: ...

    def call(self, step: Step) -> Call:
        """`run` is the shell tool that is on offer, `call` any by its name."""
        made = f"call_{uuid.uuid4().hex[:24]}"
        if step.kind == "call":
            name, _, arguments = step.text.partition(" ")
            return Call(made, name, arguments or "{}")
        offered = {tool.name: tool for tool in self.tools()}
        tool = next((offered[name] for name in SHELLS if name in offered), None)
        return Call(made, tool.name if tool else SHELLS[0], json.dumps(_command(tool, step.text)))

    def counts(self, turn: Turn) -> dict[str, Any]:
        """input, output, cached, reasoning: as the script says, else about what a provider would count."""
        default = {"input": self.size // 4 + 1, "output": len(turn.text) // 4 + 1, "cached": 0, "reasoning": 0}
        return default | dict(turn.usage)


def _command(tool: Tool | None, command: str) -> dict[str, Any]:
    """The arguments of a shell tool, by what its schema calls them."""
    known = cast("dict[str, Any]", tool.schema.get("properties") or {}) if tool else {}
    name = "cmd" if tool is None or "cmd" in known else "command"
    if name in known and known[name].get("type") == "array":
        return {name: ["bash", "-lc", command]}
    return {name: command, "description": "As scripted"} if tool and tool.name == "Bash" else {name: command}


class Responses(Form):
    """OpenAI's Responses."""

    def conversation(self) -> list[Said]:
        given = self.body.get("input")
        if isinstance(given, str):
            return [Said("user", given)]
        found: list[Said] = []
        for item in _objects(given):
            if str(item.get("type")).endswith("_output"):
                found.append(Said("result", _text(item.get("output"))))
            elif item.get("role") == "user":
                found += [Said("user", text) for text in _texts(item.get("content"))]
        return found

    def tools(self) -> list[Tool]:
        return [
            Tool(str(tool.get("name")), tool.get("parameters") or {})
            for tool in _objects(self.body.get("tools"))
            if tool.get("type") == "function"
        ]

    def usage(self, turn: Turn) -> dict[str, Any] | None:
        counts = self.counts(turn)
        if "none" in counts:
            return None
        total = counts["input"] + counts["output"] if isinstance(counts["input"], int) else counts["input"]
        return {
            "input_tokens": counts["input"],
            "input_tokens_details": {"cached_tokens": counts["cached"]},
            "output_tokens": counts["output"],
            "output_tokens_details": {"reasoning_tokens": counts["reasoning"]},
            "total_tokens": total,
        }

    def events(self, turn: Turn) -> Iterator[Event | Step]:
        response = self._response("in_progress", [], None)
        number = 0

        def event(kind: str, **data: Any) -> Event:
            nonlocal number
            number += 1
            return Event(kind, {"type": kind, "sequence_number": number - 1, **data})

        yield event("response.created", response=response)
        yield event("response.in_progress", response=response)
        done: list[dict[str, Any]] = []
        for step in turn.steps:
            item = self._item(step)
            if item is None:
                yield step
                continue
            index = len(done)
            yield event("response.output_item.added", output_index=index, item=_begun(item))
            for kind, data in _item_parts(item):
                yield event(kind, output_index=index, item_id=item["id"], **data)
            yield event("response.output_item.done", output_index=index, item=item)
            done.append(item)
        completed = self._response("completed", done, self.usage(turn)) | {"id": response["id"]}
        yield event("response.completed", response=completed)
        if "twice" in turn.usage:
            yield event("response.completed", response=completed)

    def whole(self, turn: Turn) -> dict[str, Any]:
        items = [item for step in turn.steps if (item := self._item(step))]
        return self._response("completed", items, self.usage(turn))

    def _response(self, status: str, output: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
        return {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "usage": usage,
        }

    def _item(self, step: Step) -> dict[str, Any] | None:
        if step.kind == "say":
            part: dict[str, Any] = {"type": "output_text", "text": step.text, "annotations": []}
            made = f"msg_{uuid.uuid4().hex}"
            return {"type": "message", "id": made, "role": "assistant", "status": "completed", "content": [part]}
        if step.kind == "think":
            summary = [{"type": "summary_text", "text": step.text}]
            return {"type": "reasoning", "id": f"rs_{uuid.uuid4().hex}", "summary": summary}
        if step.kind in CALLS:
            call = self.call(step)
            made = f"fc_{uuid.uuid4().hex}"
            named = {"call_id": call.id, "arguments": call.arguments, **self._named(call.name)}
            return {"type": "function_call", "id": made, "status": "completed", **named}
        return None

    def _named(self, name: str) -> dict[str, str]:
        """A tool of a namespace on offer, as Codex has those of tool servers: `mcp__notes__note` is `note` there."""
        for tool in _objects(self.body.get("tools")):
            namespace = str(tool.get("name"))
            if tool.get("type") == "namespace" and name.startswith(f"{namespace}__"):
                return {"namespace": namespace, "name": name.removeprefix(f"{namespace}__")}
        return {"name": name}

    @staticmethod
    def error(status: int, message: str) -> dict[str, Any]:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, dict[str, Any]] = {
        "message": {"content": []},
        "reasoning": {"summary": []},
        "function_call": {"arguments": ""},
    }
    return item | {"status": "in_progress"} | empty[item["type"]]


def _item_parts(item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if item["type"] == "message":
        text = item["content"][0]["text"]
        at = {"content_index": 0}
        empty: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
        yield "response.content_part.added", {**at, "part": empty}
        for word in _words(text):
            yield "response.output_text.delta", {**at, "delta": word}
        yield "response.output_text.done", {**at, "text": text}
        yield "response.content_part.done", {**at, "part": item["content"][0]}
    elif item["type"] == "reasoning":
        yield (
            "response.reasoning_summary_part.added",
            {"summary_index": 0, "part": {"type": "summary_text", "text": ""}},
        )
        yield "response.reasoning_summary_text.delta", {"summary_index": 0, "delta": item["summary"][0]["text"]}
        yield "response.reasoning_summary_text.done", {"summary_index": 0, "text": item["summary"][0]["text"]}
    else:
        yield "response.function_call_arguments.delta", {"delta": item["arguments"]}
        yield "response.function_call_arguments.done", {"arguments": item["arguments"]}


class ChatCompletions(Form):
    """OpenAI's Chat Completions."""

    def conversation(self) -> list[Said]:
        found: list[Said] = []
        for message in _objects(self.body.get("messages")):
            if message.get("role") == "tool":
                found.append(Said("result", _text(message.get("content"))))
            elif message.get("role") == "user":
                found += [Said("user", text) for text in _texts(message.get("content"))]
        return found

    def tools(self) -> list[Tool]:
        functions = [tool.get("function") for tool in _objects(self.body.get("tools"))]
        return [Tool(str(one.get("name")), one.get("parameters") or {}) for one in _objects(functions)]

    def usage(self, turn: Turn) -> dict[str, Any] | None:
        counts = self.counts(turn)
        if "none" in counts:
            return None
        total = counts["input"] + counts["output"] if isinstance(counts["input"], int) else counts["input"]
        return {
            "prompt_tokens": counts["input"],
            "completion_tokens": counts["output"],
            "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": counts["cached"]},
            "completion_tokens_details": {"reasoning_tokens": counts["reasoning"]},
        }

    def events(self, turn: Turn) -> Iterator[Event | Step]:
        made = f"chatcmpl-{uuid.uuid4().hex}"
        options = self.body.get("stream_options")
        asked = isinstance(options, dict) and cast("dict[str, Any]", options).get("include_usage") is True

        def chunk(delta: dict[str, Any], finish: str | None = None) -> Event:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return Event("", self._head(made, "chat.completion.chunk") | {"choices": [choice]} | usage)

        usage: dict[str, Any] = {"usage": None} if asked else {}
        yield chunk({"role": "assistant", "content": ""})
        calls = 0
        for step in turn.steps:
            if step.kind == "say":
                for word in _words(step.text):
                    yield chunk({"content": word})
            elif step.kind in CALLS:
                yield chunk({"tool_calls": [{"index": calls, **self._called(step)}]})
                calls += 1
            elif step.kind != "think":
                yield step
        yield chunk({}, "tool_calls" if calls else "stop")
        counted = self.usage(turn)
        if asked and counted is not None:
            for _ in range(2 if "twice" in turn.usage else 1):
                yield Event("", self._head(made, "chat.completion.chunk") | {"choices": [], "usage": counted})
        yield Event("", "[DONE]")

    def whole(self, turn: Turn) -> dict[str, Any]:
        calls = [self._called(step) for step in turn.steps if step.kind in CALLS]
        message: dict[str, Any] = {"role": "assistant", "content": turn.text or None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        usage = self.usage(turn)
        head = self._head(f"chatcmpl-{uuid.uuid4().hex}", "chat.completion")
        return head | {"choices": [choice]} | ({} if usage is None else {"usage": usage})

    def _head(self, made: str, kind: str) -> dict[str, Any]:
        return {"id": made, "object": kind, "created": int(time.time()), "model": self.model}

    def _called(self, step: Step) -> dict[str, Any]:
        call = self.call(step)
        return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}

    @staticmethod
    def error(status: int, message: str) -> dict[str, Any]:
        return Responses.error(status, message)


class Messages(Form):
    """Anthropic's Messages."""

    def conversation(self) -> list[Said]:
        found: list[Said] = []
        for message in _objects(self.body.get("messages")):
            if message.get("role") != "user":
                continue
            results = [one for one in _objects(message.get("content")) if one.get("type") == "tool_result"]
            found += [Said("result", _text(one.get("content"))) for one in results]
            if not results:
                found += [Said("user", text) for text in _texts(message.get("content"))]
        return found

    def tools(self) -> list[Tool]:
        return [
            Tool(str(tool.get("name")), tool.get("input_schema") or {}) for tool in _objects(self.body.get("tools"))
        ]

    def usage(self, turn: Turn) -> dict[str, Any] | None:
        counts = self.counts(turn)
        if "none" in counts:
            return None
        created, cached, given = counts.get("created", 0), counts["cached"], counts["input"]
        whole = isinstance(given, int) and isinstance(cached, int) and isinstance(created, int)
        return {
            "input_tokens": given - cached - created if whole else given,
            "cache_creation_input_tokens": created,
            "cache_read_input_tokens": cached,
            "output_tokens": counts["output"],
        }

    def events(self, turn: Turn) -> Iterator[Event | Step]:
        usage = self.usage(turn)
        head = self._head([]) | {"stop_reason": None}
        yield Event("message_start", _typed("message_start", message=head | _first_usage(usage)))
        index = 0
        for step in turn.steps:
            block = self._block(step)
            if block is None:
                yield step
                continue
            begun: dict[str, Any] = block | ({"input": {}} if block["type"] == "tool_use" else {block["type"]: ""})
            yield _event("content_block_start", index=index, content_block=begun)
            if index == 0:
                yield _event("ping")
            for delta in _deltas(block):
                yield _event("content_block_delta", index=index, delta=delta)
            yield _event("content_block_stop", index=index)
            index += 1
        ended = {"stop_reason": self._stopped(turn), "stop_sequence": None}
        last = {} if usage is None else {"usage": {"output_tokens": usage["output_tokens"]}}
        for _ in range(2 if "twice" in turn.usage else 1):
            yield _event("message_delta", delta=ended, **last)
        yield _event("message_stop")

    def whole(self, turn: Turn) -> dict[str, Any]:
        blocks = [block for step in turn.steps if (block := self._block(step))]
        usage = self.usage(turn)
        return self._head(blocks) | {"stop_reason": self._stopped(turn)} | ({} if usage is None else {"usage": usage})

    def _head(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        made = f"msg_{uuid.uuid4().hex[:24]}"
        head = {"id": made, "type": "message", "role": "assistant", "model": self.model}
        return head | {"content": content, "stop_sequence": None}

    def _block(self, step: Step) -> dict[str, Any] | None:
        if step.kind == "say":
            return {"type": "text", "text": step.text}
        if step.kind == "think":
            return {"type": "thinking", "thinking": step.text, "signature": ""}
        if step.kind in CALLS:
            call = self.call(step)
            made = "toolu_" + call.id.removeprefix("call_")
            return {"type": "tool_use", "id": made, "name": call.name, "input": json.loads(call.arguments)}
        return None

    @staticmethod
    def _stopped(turn: Turn) -> str:
        return "tool_use" if any(step.kind in CALLS for step in turn.steps) else "end_turn"

    @staticmethod
    def error(status: int, message: str) -> dict[str, Any]:
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}
        kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}}


def _first_usage(usage: dict[str, Any] | None) -> dict[str, Any]:
    return {} if usage is None else {"usage": usage | {"output_tokens": 1}}


def _typed(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, **data}


def _event(kind: str, **data: Any) -> Event:
    return Event(kind, _typed(kind, **data))


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "tool_use":
        yield {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    elif block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": block["thinking"]}
        yield {"type": "signature_delta", "signature": "c3RhbmQtaW4="}
    else:
        for word in _words(block["text"]):
            yield {"type": "text_delta", "text": word}


def _words(text: str) -> Iterator[str]:
    """As a model says them: one after the other, each with the blank before it."""
    for number, word in enumerate(text.split(" ")):
        said = str(time.monotonic()) if word == CLOCK else word
        yield f" {said}" if number else said


def _objects(value: Any) -> Sequence[dict[str, Any]]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [str(part["text"]) for part in _objects(content) if isinstance(part.get("text"), str)]


def _text(content: Any) -> str:
    return "\n".join(_texts(content))
