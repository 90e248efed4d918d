"""Every agent passes the suite that Atoll ships; and what each one's own lines mean."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from atoll.agents.base import Agent, Place, Said
from atoll.agents.claude_code import ClaudeCode
from atoll.agents.codex import Codex
from atoll.agents.command import Command
from atoll.domain.errors import InvalidInput
from atoll.domain.price import TokenUse
from atoll.domain.process import Exit
from atoll.domain.task import McpServer, TaskSpec
from atoll.testing.agent_conformance import PLACE, SPEC, AgentConformance

THREAD = "01a200a6-312a-7423-9252-dd3e32d32cfb"


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def item(phase: str, **fields: Any) -> bytes:
    return line(type=f"item.{phase}", item=fields)


def usage(used: int, written: int, cached: int = 0) -> bytes:
    return line(
        type="turn.completed",
        usage={"input_tokens": used, "output_tokens": written, "cached_input_tokens": cached},
    )


class TestCodex(AgentConformance):
    agent = Codex()
    good = (
        line(type="thread.started", thread_id=THREAD),
        line(type="turn.started"),
        item("completed", id="item_0", type="agent_message", text="done"),
        usage(100, 10, 5),
    )
    output = "done"

    def test_its_configuration_is_toml_that_says_what_was_asked(self) -> None:
        words = 'a "b" \\ \n\x7f \U0001f600'
        servers = (McpServer("one", ("run", words)), McpServer("two", url="http://127.0.0.1:1/x"))
        start = self.start(instructions=words, mcp_servers=servers)
        said = tomllib.loads(start.files["codex/config.toml"].decode())
        assert said["developer_instructions"] == words
        assert said["mcp_servers"]["one"]["command"] == "run" and said["mcp_servers"]["one"]["args"] == [words]
        assert said["mcp_servers"]["two"]["url"] == "http://127.0.0.1:1/x"
        assert said["model_providers"]["atoll"]["base_url"] == f"{PLACE.model_url}/v1"
        assert said["model"] == "a-model" and said["sandbox_mode"] == "danger-full-access"

    def test_its_own_model_is_for_tasks_that_name_none(self) -> None:
        place = Place("/workspace", "/h", "/l", "http://127.0.0.1:982", "")
        for agent, model in ((Codex("mine"), "mine"), (Codex(), None)):
            said = tomllib.loads(agent.start(SPEC, place, "").files["codex/config.toml"].decode())
            assert said.get("model") == model

    def test_it_counts_a_run_not_the_conversation(self) -> None:
        first, _ = self.ran(self.good)
        assert first.tokens == TokenUse(100, 10, 5)
        second, _ = self.ran((self.good[0], usage(107, 13, 5)), thread=first.agent_thread)
        assert second.tokens == TokenUse(7, 3)
        third, _ = self.ran((self.good[0], usage(207, 23, 6)), thread=second.agent_thread)
        assert third.tokens == TokenUse(100, 10, 1)
        anew, _ = self.ran((self.good[0], usage(4, 2)), thread=third.agent_thread)
        assert anew.tokens == TokenUse(4, 2)  # a version that counts each run by itself

    def test_another_conversation_than_was_asked_for_counts_from_nothing(self) -> None:
        other = THREAD.replace("0", "f")
        run, _ = self.ran((line(type="thread.started", thread_id=other), usage(150, 20)), thread=f"{THREAD}#100.10.0.0")
        assert run.tokens == TokenUse(150, 20) and run.agent_thread.startswith(other)

    def test_resuming_names_the_conversation_and_nothing_else(self) -> None:
        assert self.start(f"{THREAD}#1.2.3.4").argv[-3:] == ("resume", THREAD, "-")

    def test_its_items_become_events(self) -> None:
        command = {"id": "i1", "type": "command_execution", "command": "ls", "aggregated_output": "a\n", "exit_code": 0}
        lines = (
            item("started", **command | {"exit_code": None}, status="in_progress"),
            item("completed", **command, status="completed"),
            item("completed", type="file_change", changes=[{"path": "/w/a", "kind": "add"}], status="completed"),
            item(
                "completed",
                type="mcp_tool_call",
                id="i2",
                server="s",
                tool="t",
                status="failed",
                error={"message": "no"},
            ),
            item("updated", type="todo_list", items=[{"text": "one", "completed": True}]),
            item("completed", type="reasoning", text="hm"),
            item("completed", type="error", message="Model metadata for `x` not found."),
            item("completed", type="error", message="odd"),
            line(type="error", message="Reconnecting... 1/4"),
            line(type="turn.failed", error={"message": "over"}),
        )
        outcome, said = self.ran(lines, Exit(1))
        assert outcome.error == "over"
        assert [(one.type, one.data.get("status")) for one in said] == [
            ("command", "in_progress"),
            ("command", "completed"),
            ("file_change", "completed"),
            ("tool_call", "failed"),
            ("plan", None),
            ("reasoning", None),
            ("warning", None),
            ("warning", None),
            ("error", None),
        ]
        assert said[3].data["error"] == "no" and said[6].data == {"message": "odd"}


class TestClaudeCode(AgentConformance):
    agent = ClaudeCode()
    good = (
        line(type="system", subtype="init", session_id=THREAD),
        line(type="assistant", session_id=THREAD, message={"content": [{"type": "text", "text": "done"}]}),
        line(
            type="result",
            subtype="success",
            is_error=False,
            result="done",
            session_id=THREAD,
            usage={
                "input_tokens": 5,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 2,
                "output_tokens": 7,
            },
        ),
    )
    output = "done"

    def test_what_was_cached_is_input_too(self) -> None:
        assert self.ran(self.good)[0].tokens == TokenUse(10, 7, 3)

    def test_a_result_that_is_an_error_fails_with_its_text(self) -> None:
        result = line(type="result", subtype="success", is_error=True, result="API Error: 402", session_id=THREAD)
        outcome, _ = self.ran((*self.good[:2], result), Exit(1))
        assert not outcome.ok and outcome.error == "API Error: 402"

    def test_its_tools_become_events(self) -> None:
        def used(name: str, call: str, **given: Any) -> bytes:
            return line(
                type="assistant", message={"content": [{"type": "tool_use", "id": call, "name": name, "input": given}]}
            )

        def answered(call: str, text: Any, error: bool = False) -> bytes:
            block = {"type": "tool_result", "tool_use_id": call, "content": text, "is_error": error}
            return line(type="user", message={"content": [block]})

        lines = (
            used("Bash", "c1", command="ls"),
            answered("c1", [{"type": "text", "text": "a"}]),
            used("Write", "c2", file_path="/w/a"),
            answered("c2", "ok"),
            used("mcp__s__t", "c3"),
            answered("c3", "no", error=True),
            used("TodoWrite", "c4", todos=[{"content": "one", "status": "completed"}]),
            answered("c4", "ok"),
            line(
                type="assistant", parent_tool_use_id="c9", message={"content": [{"type": "text", "text": "of another"}]}
            ),
            line(type="stream_event", event={"delta": {"type": "text_delta", "text": "d"}}),
        )
        _, said = self.ran(lines)
        assert said == [
            Said("command", {"id": "c1", "command": "ls", "output": "", "exit_code": None, "status": "in_progress"}),
            Said("command", {"id": "c1", "command": "ls", "output": "a", "exit_code": 0, "status": "completed"}),
            Said("file_change", {"changes": [{"path": "/w/a", "kind": "add"}], "status": "completed"}),
            Said("tool_call", {"id": "c3", "server": "s", "tool": "t", "status": "in_progress"}),
            Said("tool_call", {"id": "c3", "server": "s", "tool": "t", "status": "failed", "error": "no"}),
            Said("plan", {"items": [{"text": "one", "completed": True}]}),
            Said("message.delta", {"text": "d"}),
        ]

    def test_instructions_that_no_argument_can_hold_are_refused(self) -> None:
        with pytest.raises(InvalidInput) as refused:
            self.start(instructions="x" * 100_001)
        assert refused.value.field == "instructions"


class TestCommand(AgentConformance):
    agent = Command()
    good = (
        line(atoll="thread", id="t-1"),
        line(atoll="message", text="working"),
        line(atoll="result", text="done", ok=True),
    )
    output = "done"

    def test_plain_text_is_the_output(self) -> None:
        outcome, said = self.ran((b"one", b'{"type": "result"}', b"two"))
        assert outcome.ok and outcome.output == 'one\n{"type": "result"}\ntwo\n'
        assert [one.type for one in said] == ["output"] * 3

    def test_of_much_text_the_end_is_kept(self) -> None:
        outcome, _ = self.ran([b"%d " % number + b"x" * 1_000 for number in range(2_000)])
        assert outcome.output.endswith("1999 " + "x" * 1_000 + "\n") and len(outcome.output) <= 2**18

    def test_it_may_say_that_it_failed_although_it_ended_well(self) -> None:
        outcome, _ = self.ran((line(atoll="result", ok=False, text="half", error="no way"),))
        assert (outcome.ok, outcome.output, outcome.error) == (False, "half", "no way")

    def test_its_tokens_add_up(self) -> None:
        lines = (line(atoll="usage", input_tokens=5, output_tokens=2), line(atoll="usage", input_tokens=5))
        assert self.ran(lines)[0].tokens == TokenUse(10, 2)
        assert self.ran([line(atoll="usage", input_tokens=2**53)] * 3)[0].tokens == TokenUse(2**53, 0)

    def test_the_task_is_in_its_environment_unless_that_cannot_hold_it(self) -> None:
        assert self.start(prompt="do it").env["ATOLL_TASK"] == "do it"
        start = self.start(prompt="ü" * 90_000)
        assert "ATOLL_TASK" not in start.env and len(start.stdin) == 180_000

    def test_the_words_of_its_command_are_passed_as_they_are(self) -> None:
        words = ("prog", "a b", "$(id)", "", "--x")
        assert self.start(command=words).argv == words


@pytest.mark.parametrize("agent", [Codex(), ClaudeCode(), Command()])
def test_a_tool_server_s_name_that_would_be_more_than_a_name_or_comes_twice_is_refused(agent: Agent) -> None:
    for name in ("a.b", "", "a b", "a]\n[b", "x" * 65, "fine"):
        servers = (McpServer("fine", ("x",)), McpServer(name, ("x",)))
        spec = TaskSpec("do", "ws_1", command=("x",), mcp_servers=servers)
        with pytest.raises(InvalidInput) as refused:
            agent.start(spec, PLACE, "")
        assert refused.value.field == "mcpServers.1.name"
