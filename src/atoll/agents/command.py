"""Any program as an agent: the task is its input and in its environment, what it writes is the answer.

A line `{"atoll": "message", "text": ...}` says more than text can: docs/agents.md has the whole form. All other lines
are text. `atoll.adapters` makes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from atoll.agents.base import Agent, Outcome, Package, Place, Reader, Said, Start
from atoll.agents.lines import (
    OUTPUT_CHARS_MAX,
    TEXT_CHARS_MAX,
    Tail,
    count_of,
    fields_of,
    object_in,
    objects_in,
    text_of,
)
from atoll.agents.servers import mcp_file
from atoll.domain.errors import InvalidInput
from atoll.domain.price import TokenUse
from atoll.domain.process import Exit
from atoll.domain.task import TaskSpec

PLACEHOLDER = "none-needed-here"  # for libraries that insist on a key
ENV_BYTES_MAX = 100_000  # of one variable: the kernel takes 128 KiB
ARGS_MAX = 1_000
MCP_FILE = "mcp.json"
_MARK = "atoll"
_THREAD = re.compile(r"[\x21-\x7e]{1,200}")


class Command(Agent):
    name: ClassVar[str] = "command"
    package: ClassVar[Package | None] = None

    def start(self, spec: TaskSpec, place: Place, agent_thread: str) -> Start:
        if not spec.command or not spec.command[0]:
            raise InvalidInput("command must name the program that the agent `command` is to start", field="command")
        if len(spec.command) > ARGS_MAX or any("\0" in part for part in spec.command):
            raise InvalidInput(f"command must be at most {ARGS_MAX} words, none with a NUL", field="command")
        prompt = text_of(spec.prompt, len(spec.prompt))
        env = {
            "ATOLL_TASK": prompt,
            "ATOLL_INSTRUCTIONS": text_of(spec.instructions, len(spec.instructions)),
            "ATOLL_MODEL": text_of(place.model),
            "ATOLL_MODEL_URL": place.model_url,
            "ATOLL_THREAD": agent_thread if _THREAD.fullmatch(agent_thread) else "",
            "ATOLL_THREAD_HOME": place.home,
            "OPENAI_BASE_URL": f"{place.model_url}/v1",
            "OPENAI_API_KEY": PLACEHOLDER,
            "ANTHROPIC_BASE_URL": place.model_url,
            "ANTHROPIC_API_KEY": PLACEHOLDER,
        }
        files: dict[str, bytes] = {}
        if spec.mcp_servers:
            env["ATOLL_MCP_CONFIG"] = f"{place.home}/{MCP_FILE}"
            files[MCP_FILE] = json.dumps(mcp_file(spec)).encode()
        kept = {name: value for name, value in env.items() if value and len(value.encode()) <= ENV_BYTES_MAX}
        return Start(tuple(spec.command), kept, prompt.encode(), files)

    def reader(self, agent_thread: str = "") -> Reader:
        return _Reader(agent_thread)


class _Reader(Reader):
    def __init__(self, agent_thread: str) -> None:
        self._thread = agent_thread
        self._plain: list[str] = []
        self._plain_chars = 0
        self._message = self._result = self._error = ""
        self._ok: bool | None = None
        self._tokens: TokenUse | None = None
        self._stderr = Tail()

    @property
    def agent_thread(self) -> str:
        return self._thread

    def stderr(self, data: bytes) -> None:
        self._stderr.add(data)

    def line(self, line: bytes) -> Sequence[Said]:
        said = object_in(line) if line.startswith(b"{") else None
        kind = None if said is None else said.get(_MARK)
        if said is None or not isinstance(kind, str):
            return [Said("output", {"text": self._write(line)})]
        if kind == "thread":
            told = said.get("id")
            self._thread = told if isinstance(told, str) and _THREAD.fullmatch(told) else self._thread
        elif kind == "usage":
            self._tokens = _bounded((self._tokens or TokenUse()) + _tokens(said))
        elif kind == "result":
            self._result, self._ok = text_of(said.get("text")), said.get("ok") is not False
            self._error = text_of(said.get("error")) or self._error
        else:
            return self._event(kind, said)
        return ()

    def end(self, exit: Exit | None) -> Outcome:
        ended_well = self._ok is True if exit is None else exit.code == 0
        ok = ended_well and self._ok is not False
        output = self._result or self._message or text_of("".join(self._plain))
        how = "nobody knows how it ended" if exit is None else f"it ended with code {exit.code}"
        error = "" if ok else self._error or self._stderr.text or f"the command failed: {how}"
        return Outcome(ok, output, error, self._thread, self._tokens)

    def _write(self, line: bytes) -> str:
        """Plain text; of more than an output may have the last part is kept."""
        text = text_of(line.decode(errors="replace")) + "\n"
        self._plain.append(text)
        self._plain_chars += len(text)
        if self._plain_chars > 2 * TEXT_CHARS_MAX:
            self._plain = ["".join(self._plain)[-TEXT_CHARS_MAX:]]
            self._plain_chars = TEXT_CHARS_MAX
        return text

    def _event(self, kind: str, said: Mapping[str, Any]) -> Sequence[Said]:
        if kind in ("message", "message.delta", "reasoning"):
            text = text_of(said.get("text"))
            if kind == "message":
                self._message = text
            return [Said(kind, {"text": text})]
        if kind in ("warning", "error"):
            message = text_of(said.get("message"))
            if kind == "error":
                self._error = message
            return [Said(kind, {"message": message})]
        made = _MADE.get(kind)
        return [Said(kind, made(said))] if made else []


def _tokens(said: Mapping[str, Any]) -> TokenUse:
    return TokenUse(
        count_of(said.get("input_tokens")),
        count_of(said.get("output_tokens")),
        count_of(said.get("cached_input_tokens")),
        count_of(said.get("reasoning_output_tokens")),
    )


def _bounded(used: TokenUse) -> TokenUse:
    return TokenUse(count_of(used.input), count_of(used.output), count_of(used.cached), count_of(used.reasoning))


def _command(said: Mapping[str, Any]) -> dict[str, Any]:
    code = said.get("exit_code")
    return {
        "command": text_of(said.get("command"), OUTPUT_CHARS_MAX),
        "output": text_of(said.get("output"), OUTPUT_CHARS_MAX),
        "exit_code": code if isinstance(code, int) and abs(code) < 2**31 else None,
        "status": text_of(said.get("status"), 64) or "completed",
    }


def _file_change(said: Mapping[str, Any]) -> dict[str, Any]:
    changes = objects_in(said.get("changes"))
    made = [{"path": text_of(one.get("path"), 4096), "kind": text_of(one.get("kind"), 64)} for one in changes]
    return {"changes": made}


def _tool_call(said: Mapping[str, Any]) -> dict[str, Any]:
    arguments = fields_of(said.get("arguments"))
    return {
        "server": text_of(said.get("server"), 256),
        "tool": text_of(said.get("tool"), 256),
        "status": text_of(said.get("status"), 64) or "completed",
        "arguments": text_of(json.dumps(arguments), OUTPUT_CHARS_MAX) if arguments else "",
    }


def _plan(said: Mapping[str, Any]) -> dict[str, Any]:
    items = objects_in(said.get("items"))
    return {"items": [{"text": text_of(i.get("text"), 4096), "completed": i.get("completed") is True} for i in items]}


_MADE = {"command": _command, "file_change": _file_change, "tool_call": _tool_call, "plan": _plan}
