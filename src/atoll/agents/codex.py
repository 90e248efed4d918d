"""Codex: OpenAI's coding agent, driven by `codex exec --json`; `atoll.adapters` makes it.

A conversation is a rollout below CODEX_HOME, in the thread's folder, so that a revision takes it along. What Codex
keeps besides, in SQLite, can be made again from it and lies in the sandbox's own /tmp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from atoll.agents.base import Agent, Outcome, Package, Place, Reader, Said, Start
from atoll.agents.lines import OUTPUT_CHARS_MAX, Tail, count_of, fields_of, object_in, objects_in, text_of
from atoll.agents.servers import mcp_servers_of
from atoll.domain.errors import InvalidInput
from atoll.domain.price import TokenUse
from atoll.domain.process import Exit
from atoll.domain.task import TaskSpec

PACKAGE = Package(
    source="pip",
    name="openai-codex-cli-bin",
    version="0.163.0",
    folder="codex_cli_bin",
    program="bin/codex",
    hashes=(
        "76db41fb07fdf9ddacbe892b48d21dfde270031ec0f5666b5e558114355f006d",  # x86_64
        "bb2b0d117eeb02608738cf2bcdf51f6a036343d0028272e11a94e72b0d23b141",  # aarch64
    ),
)
HOME = "codex"
SCRATCH = "/tmp/.atoll-codex"
STARTUP_S, CALL_S = 30, 300  # of a tool server
RETRIES = 4  # of a request and of a stream: enough for a restart of the server

# Off: what talks to services of OpenAI, what a task has no use for, and what would hide the requests' bodies.
_FEATURES_OFF = (
    "api_key_model_discovery",
    "apps",
    "browser_use",
    "cli_daybreak",
    "computer_use",
    "daemon_auto_start",
    "enable_request_compression",
    "goals",
    "image_generation",
    "remote_plugin",
    "shell_snapshot",  # would write the environment, with what is secret in it, into the workspace
    "skill_search",
    "tool_suggest",
)
_DISABLED = ("plugins", "unbounded_connection_retries")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_THREAD = re.compile(rf"({_UUID.pattern})(?:#(\d{{1,16}})\.(\d{{1,16}})\.(\d{{1,16}})\.(\d{{1,16}}))?")
_HARMLESS = ("Model metadata for ", "Codex is ignoring ")


class Codex(Agent):
    name: ClassVar[str] = "codex"
    package: ClassVar[Package | None] = PACKAGE
    speaks: ClassVar[str] = "openai"

    def __init__(self, model: str = "") -> None:
        """`model` is for tasks that name none; "": the program's own choice."""
        self._model = model

    def start(self, spec: TaskSpec, place: Place, agent_thread: str) -> Start:
        if not spec.prompt.strip():
            raise InvalidInput("prompt: expected some text", field="prompt")
        resumed, _ = _thread(agent_thread)
        argv = [f"{place.layer}/{PACKAGE.program}", "exec"]
        for feature in _DISABLED:
            argv += ["--disable", feature]
        argv += ["--json", "--skip-git-repo-check", "-C", place.workspace]
        argv += ["resume", resumed, "-"] if resumed else ["-"]
        files = {f"{HOME}/config.toml": _config(spec, place, place.model or self._model).encode()}
        env = {"CODEX_HOME": f"{place.home}/{HOME}"}
        return Start(tuple(argv), env, text_of(spec.prompt, len(spec.prompt)).encode(), files)

    def reader(self, agent_thread: str = "") -> Reader:
        return _Reader(agent_thread)


def _config(spec: TaskSpec, place: Place, model: str) -> str:
    """config.toml of this run; what a run before left is replaced."""
    lines = [
        f"model = {_toml(model)}" if model else "",
        'model_provider = "atoll"',
        'approval_policy = "never"',
        'sandbox_mode = "danger-full-access"',  # the sandbox around it is ours
        "check_for_update_on_startup = false",
        'web_search = "disabled"',
        f"sqlite_home = {_toml(SCRATCH)}",
        f"log_dir = {_toml(SCRATCH)}",
        f"developer_instructions = {_toml(spec.instructions)}" if spec.instructions else "",
        "[analytics]\nenabled = false",
        "[feedback]\nenabled = false",
        "[skills]\nbundled = { enabled = false }",
        "[features]",
        *(f"{feature} = false" for feature in _FEATURES_OFF),
        "[model_providers.atoll]",
        'name = "atoll"',
        f"base_url = {_toml(f'{place.model_url}/v1')}",
        'wire_api = "responses"',
        f"request_max_retries = {RETRIES}",
        f"stream_max_retries = {RETRIES}",
    ]
    for name, server in mcp_servers_of(spec).items():
        lines += _server(name, server)
    return "\n".join(filter(None, lines)) + "\n"


def _server(name: str, server: Mapping[str, Any]) -> Iterator[str]:
    yield f"[mcp_servers.{_toml(name)}]"
    if "url" in server:
        yield f"url = {_toml(server['url'])}"
    else:
        yield f"command = {_toml(server['command'])}"
        yield f"args = [{', '.join(map(_toml, server['args']))}]"
    yield f"startup_timeout_sec = {STARTUP_S}"
    yield f"tool_timeout_sec = {CALL_S}"
    yield 'default_tools_approval_mode = "approve"'


def _toml(text: str) -> str:
    """A basic string: JSON's form, but for DEL, and without halves of characters."""
    return json.dumps(text_of(text, len(text) + 1), ensure_ascii=False).replace("\x7f", "\\u007f")


def _thread(agent_thread: str) -> tuple[str, TokenUse]:
    """Codex's id of the conversation and what it had used when it was last told: it counts from its beginning."""
    found = _THREAD.fullmatch(agent_thread)
    if found is None:
        return "", TokenUse()
    used, written, cached, reasoning = (int(number or 0) for number in found.groups()[1:])
    return str(found[1]), TokenUse(used, written, cached, reasoning)


class _Reader(Reader):
    def __init__(self, agent_thread: str) -> None:
        self._id: str
        self._before: TokenUse
        self._id, self._before = _thread(agent_thread)
        self._total: TokenUse | None = None
        self._output = self._error = ""
        self._completed = self._failed = False
        self._stderr = Tail()

    @property
    def agent_thread(self) -> str:
        total = self._total or self._before
        counts = f"{total.input}.{total.output}.{total.cached}.{total.reasoning}"
        return f"{self._id}#{counts}" if self._id else ""

    def stderr(self, data: bytes) -> None:
        self._stderr.add(data)

    def line(self, line: bytes) -> Sequence[Said]:
        event = object_in(line)
        if event is None:
            return ()
        kind = event.get("type")
        if kind == "thread.started":
            self._started(event)
        elif kind == "turn.completed":
            self._completed = True
            self._used(fields_of(event.get("usage")))
        elif kind == "turn.failed":
            self._failed = True
            self._error = text_of(fields_of(event.get("error")).get("message")) or self._error
            return [Said("error", {"message": self._error})]
        elif kind == "error":
            self._error = text_of(event.get("message"))
            return [Said("warning", {"message": self._error})]
        elif kind in ("item.started", "item.updated", "item.completed"):
            return self._item(str(kind).removeprefix("item."), fields_of(event.get("item")))
        return ()

    def end(self, exit: Exit | None) -> Outcome:
        ok = self._completed and not self._failed and (exit is None or exit.code == 0)
        how = "nobody knows how it ended" if exit is None else f"it ended with code {exit.code}"
        error = "" if ok else self._error or self._stderr.text or f"Codex did not finish: {how}"
        return Outcome(ok, self._output, error, self.agent_thread, self._tokens())

    def _started(self, event: Mapping[str, Any]) -> None:
        told = text_of(event.get("thread_id"), 64)
        if _UUID.fullmatch(told) and told != self._id:
            self._id, self._before = told, TokenUse()  # not the one that was asked for: it counts from nothing

    def _used(self, usage: Mapping[str, Any]) -> None:
        self._total = TokenUse(
            count_of(usage.get("input_tokens")),
            count_of(usage.get("output_tokens")),
            count_of(usage.get("cached_input_tokens")),
            count_of(usage.get("reasoning_output_tokens")),
        )

    def _tokens(self) -> TokenUse | None:
        """Of this run: the total of the conversation without what it was before."""
        total, before = self._total, self._before
        if total is None:
            return None
        if total.input < before.input or total.output < before.output:
            return total  # it began anew
        return TokenUse(
            total.input - before.input,
            total.output - before.output,
            max(0, total.cached - before.cached),
            max(0, total.reasoning - before.reasoning),
        )

    def _item(self, phase: str, item: Mapping[str, Any]) -> Sequence[Said]:
        kind, done = item.get("type"), phase == "completed"
        if kind == "agent_message" and done:
            self._output = text_of(item.get("text"))
            return [Said("message", {"text": self._output})]
        if kind == "reasoning" and done:
            return [Said("reasoning", {"text": text_of(item.get("text"))})]
        if kind == "command_execution" and phase != "updated":
            return [Said("command", _command(item))]
        if kind == "file_change" and done:
            return [Said("file_change", {"changes": _changes(item), "status": text_of(item.get("status"), 64)})]
        if kind == "mcp_tool_call" and phase != "updated":
            return [Said("tool_call", _call(item))]
        if kind == "web_search" and done:
            return [Said("tool_call", {"tool": "web_search", "arguments": text_of(item.get("query"), 4096)})]
        if kind == "todo_list":
            items = [
                {"text": text_of(one.get("text"), 4096), "completed": one.get("completed") is True}
                for one in objects_in(item.get("items"))
            ]
            return [Said("plan", {"items": items})]
        if kind == "error" and done:
            message = text_of(item.get("message"))
            return () if message.startswith(_HARMLESS) else [Said("warning", {"message": message})]
        return ()


def _command(item: Mapping[str, Any]) -> dict[str, Any]:
    code = item.get("exit_code")
    return {
        "id": text_of(item.get("id"), 64),
        "command": text_of(item.get("command"), OUTPUT_CHARS_MAX),
        "output": text_of(item.get("aggregated_output"), OUTPUT_CHARS_MAX),
        "exit_code": code if isinstance(code, int) and abs(code) < 2**31 else None,
        "status": text_of(item.get("status"), 64),
    }


def _changes(item: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"path": text_of(change.get("path"), 4096), "kind": text_of(change.get("kind"), 64)}
        for change in objects_in(item.get("changes"))
    ]


def _call(item: Mapping[str, Any]) -> dict[str, Any]:
    error = fields_of(item.get("error")).get("message")
    said = {
        "id": text_of(item.get("id"), 64),
        "server": text_of(item.get("server"), 256),
        "tool": text_of(item.get("tool"), 256),
        "status": text_of(item.get("status"), 64),
    }
    return said | ({"error": text_of(error, OUTPUT_CHARS_MAX)} if isinstance(error, str) else {})
