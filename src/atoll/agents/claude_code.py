"""Claude Code: Anthropic's coding agent, driven by `claude -p --output-format stream-json`; `atoll.adapters` makes it.

A conversation is a file below CLAUDE_CONFIG_DIR, in the thread's folder, so that a revision takes it along.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from atoll.agents.base import Agent, Outcome, Package, Place, Reader, Said, Start
from atoll.agents.lines import OUTPUT_CHARS_MAX, Tail, count_of, fields_of, object_in, objects_in, text_of
from atoll.agents.servers import mcp_file
from atoll.domain.errors import InvalidInput
from atoll.domain.price import TokenUse
from atoll.domain.process import Exit
from atoll.domain.task import TaskSpec

PACKAGE = Package(
    source="npm",
    name="@anthropic-ai/claude-code-{platform}",
    version="2.1.330",
    folder="package",
    program="claude",
    hashes=(
        "sha512-9Gn+V7DtJ8M1nztP9CeDVl9g3RtrepI7rOFTyPRRnZe8D6zebIHKmC7OvBauucuAP0X0k85SDN/LPVZyjsGezQ==",  # linux-x64
        "sha512-V4yanAY5EA5UpwwRPtjSfqDbNqAlUJeVn3NYZw2AgmRHjdpSsLtHAzbxRXfkAnbjwTXzE0uedjQxUY02ARPcsA==",  # arm64
        "sha512-OnduSSPY1b59FA8jTbq20Y1XkDUV0S1OVyvYBNslEbpX79P81JF7Ih4lgYvDKiFnnSv75z4Kv6qLE5DQqogYXA==",  # x64-musl
        "sha512-NemfeTqZ30tQDhAeumZgDYoX4ewhAHkN3dbcsyvlgb+yvpKUlcYu5Bor8K+Du5azGe3uy9sftlJxbGhTsCR7zA==",  # arm64-musl
    ),
)
HOME = "claude"
MCP_FILE = f"{HOME}/atoll-mcp.json"
INSTRUCTIONS_BYTES_MAX = 100_000  # an argument: the kernel takes 128 KiB
OUTPUT_TOKENS = 8_192  # of one call, which are held before it: its own bound would hold more than a dollar
RETRIES = 4
CALLS_MAX = 1_000  # tool calls that wait for their results
_SESSION = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_EDITS = {"Write": "add", "Edit": "update", "MultiEdit": "update", "NotebookEdit": "update"}


class ClaudeCode(Agent):
    name: ClassVar[str] = "claude_code"
    package: ClassVar[Package | None] = PACKAGE
    speaks: ClassVar[str] = "anthropic"

    def __init__(self, model: str = "") -> None:
        """`model` is for tasks that name none; "": the program's own choice."""
        self._model = model

    def start(self, spec: TaskSpec, place: Place, agent_thread: str) -> Start:
        if not spec.prompt.strip():
            raise InvalidInput("prompt: expected some text", field="prompt")
        argv = [f"{place.layer}/{PACKAGE.program}", "-p", "--output-format", "stream-json", "--verbose"]
        argv += ["--include-partial-messages", "--dangerously-skip-permissions", "--strict-mcp-config"]
        model = text_of(place.model or self._model)
        if model:
            argv.append(f"--model={model}")
        if spec.instructions:
            instructions = text_of(spec.instructions, len(spec.instructions))
            if len(instructions.encode()) > INSTRUCTIONS_BYTES_MAX:
                message = f"instructions: Claude Code takes at most {INSTRUCTIONS_BYTES_MAX:,} bytes"
                raise InvalidInput(message, field="instructions")
            argv.append(f"--append-system-prompt={instructions}")
        if _SESSION.fullmatch(agent_thread):
            argv.append(f"--resume={agent_thread}")
        files: dict[str, bytes] = {}
        if spec.mcp_servers:
            argv.append(f"--mcp-config={place.home}/{MCP_FILE}")
            files[MCP_FILE] = json.dumps(mcp_file(spec)).encode()
        prompt = text_of(spec.prompt, len(spec.prompt)).encode()
        return Start(tuple(argv), _env(place, model), prompt, files)

    def reader(self, agent_thread: str = "") -> Reader:
        return _Reader(agent_thread)


def _env(place: Place, model: str) -> dict[str, str]:
    env = {
        "ANTHROPIC_BASE_URL": place.model_url,
        "ANTHROPIC_API_KEY": "none-needed-here",
        "CLAUDE_CONFIG_DIR": f"{place.home}/{HOME}",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(OUTPUT_TOKENS),
        "CLAUDE_CODE_MAX_RETRIES": str(RETRIES),
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",  # the sandbox around it is ours
    }
    # what it does on the side, for which it would take a model that the endpoint may not have
    return env | ({"ANTHROPIC_SMALL_FAST_MODEL": model} if model else {})


class _Reader(Reader):
    def __init__(self, agent_thread: str) -> None:
        self._session = agent_thread
        self._message = self._output = self._error = ""
        self._result: Mapping[str, Any] | None = None
        self._calls: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._stderr = Tail()

    @property
    def agent_thread(self) -> str:
        return self._session

    def stderr(self, data: bytes) -> None:
        self._stderr.add(data)

    def line(self, line: bytes) -> Sequence[Said]:
        event = object_in(line)
        if event is None:
            return ()
        session, kind = event.get("session_id"), event.get("type")
        if isinstance(session, str) and _SESSION.fullmatch(session) and kind in ("system", "result"):
            self._session = session
        if kind == "result":
            self._result = event
            self._output = text_of(event.get("result"))
            return ()
        if event.get("parent_tool_use_id") is not None:
            return ()  # of an agent that it started: its result is told
        message = fields_of(event.get("message"))
        said: list[Said] = []
        for block in objects_in(message.get("content")):
            if kind == "assistant":
                said += self._block(block)
            elif kind == "user" and block.get("type") == "tool_result":
                said += self._answered(block)
        return said + _partial(event) if kind == "stream_event" else said

    def end(self, exit: Exit | None) -> Outcome:
        result = self._result or {}
        ok = bool(result) and result.get("is_error") is not True and result.get("subtype") == "success"
        ok = ok and (exit is None or exit.code == 0)
        how = "nobody knows how it ended" if exit is None else f"it ended with code {exit.code}"
        error = self._output if result else self._error
        error = "" if ok else error or self._stderr.text or f"Claude Code did not finish: {how}"
        return Outcome(ok, self._output or self._message, error, self._session, _tokens(result))

    def _block(self, block: Mapping[str, Any]) -> Sequence[Said]:
        kind = block.get("type")
        if kind == "text":
            self._message = text_of(block.get("text"))
            return [Said("message", {"text": self._message})]
        if kind == "thinking":
            return [Said("reasoning", {"text": text_of(block.get("thinking"))})]
        if kind != "tool_use":
            return ()
        name, given = text_of(block.get("name"), 256), fields_of(block.get("input"))
        if len(self._calls) < CALLS_MAX:
            self._calls[text_of(block.get("id"), 256)] = (name, given)
        if name == "TodoWrite":
            items = [
                {"text": text_of(one.get("content"), 4096), "completed": one.get("status") == "completed"}
                for one in objects_in(given.get("todos"))
            ]
            return [Said("plan", {"items": items})]
        return _told(text_of(block.get("id"), 64), name, given, "in_progress", "")

    def _answered(self, block: Mapping[str, Any]) -> Sequence[Said]:
        made = self._calls.pop(text_of(block.get("tool_use_id"), 256), None)
        if made is None or made[0] == "TodoWrite":
            return ()
        content = block.get("content")
        output = content if isinstance(content, str) else "".join(text_of(p.get("text")) for p in objects_in(content))
        status = "failed" if block.get("is_error") is True else "completed"
        return _told(text_of(block.get("tool_use_id"), 64), *made, status, output)


def _told(call: str, name: str, given: Mapping[str, Any], status: str, output: str) -> Sequence[Said]:
    """A use of a tool: a command, a change to a file, or any other."""
    output = text_of(output, OUTPUT_CHARS_MAX)
    if name == "Bash":
        command = text_of(given.get("command"), OUTPUT_CHARS_MAX)
        code = 0 if status == "completed" else None  # it does not tell the code itself
        return [
            Said("command", {"id": call, "command": command, "output": output, "exit_code": code, "status": status})
        ]
    if name in _EDITS:
        path = text_of(given.get("file_path") or given.get("notebook_path"), 4096)
        change = {"path": path, "kind": _EDITS[name]}
        return [Said("file_change", {"changes": [change], "status": status})] if status != "in_progress" else ()
    server, tool = "", name
    if name.startswith("mcp__"):
        server, _, tool = name.removeprefix("mcp__").partition("__")
    said = {"id": call, "server": server, "tool": tool, "status": status}
    return [Said("tool_call", said | ({"error": output} if status == "failed" else {}))]


def _partial(event: Mapping[str, Any]) -> list[Said]:
    """A piece of a message while it is written."""
    delta = fields_of(fields_of(event.get("event")).get("delta"))
    return [Said("message.delta", {"text": text_of(delta.get("text"))})] if delta.get("type") == "text_delta" else []


def _tokens(result: Mapping[str, Any]) -> TokenUse | None:
    """Of this run. What was written to a cache and read from one is input too."""
    usage = fields_of(result.get("usage"))
    if not usage:
        return None
    cached, written = count_of(usage.get("cache_read_input_tokens")), count_of(usage.get("cache_creation_input_tokens"))
    return TokenUse(
        count_of(usage.get("input_tokens")) + cached + written, count_of(usage.get("output_tokens")), cached
    )
