"""What every agent's adapter must do, as tests: subclass `AgentConformance` and say which lines its program writes.

    class TestMine(AgentConformance):
        agent = Mine()
        good = (b'{"said": "hello"}', b'{"ended": true}')  # of a run that succeeds, with `output` as its answer
        output = "hello"

Each test holds one sentence of the contract in `atoll.agents.base`. Nothing is started: an adapter is pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import pytest

from atoll.agents.base import Agent, Outcome, Place, Said, Start
from atoll.domain.errors import InvalidInput
from atoll.domain.process import Exit
from atoll.domain.task import McpServer, TaskSpec

EVENTS = frozenset(
    {
        "message.delta",
        "message",
        "reasoning",
        "command",
        "file_change",
        "tool_call",
        "plan",
        "usage",
        "warning",
        "error",
        "output",
    }
)
PLACE = Place(
    workspace="/workspace",
    home="/workspace/.home/.atoll/threads/thread_1",
    layer="/opt/atoll/agents/one",
    model_url="http://127.0.0.1:982",
    model="a-model",
)
SPEC = TaskSpec("do it", "ws_1", command=("do", "it"))
ODD = (
    b"",
    b"plain words",
    b"{",
    b"}{",
    b"[1, 2]",
    b"null",
    b"17",
    b'"text"',
    b"\xff\xfe\x00\x01",
    b'{"type": 5, "item": "x", "message": [], "usage": 3, "error": "e"}',
    b'{"type": "item.completed", "item": null}',
    b'{"type": "result", "usage": [], "result": {}}',
    b'{"type": "assistant", "message": {"content": [1, null, {"type": "text", "text": 9}, {"type": "tool_use"}]}}',
    b'{"type": "turn.completed", "usage": {"input_tokens": -5, "output_tokens": 1e999, "cached_input_tokens": true}}',
    b'{"type": "turn.completed", "usage": {"input_tokens": ' + b"9" * 5_000 + b"}}",
    b'{"type": "item.completed", "item": {"type": "agent_message", "text": "\\ud800 \\u0000 half"}}',
    b'{"atoll": "message", "text": "\\udfff\\u0000"}',
    b'{"atoll": {}}',
    b'{"a":' * 100_000,
    b"[" * 100_000,
    b'{"type": NaN}',
    b'{"type": "item.completed", "item": {"type": "todo_list", "items": ' + b"[" + b"{}," * 9_999 + b"{}]}}",
)
HUGE = (
    b"x" * 8_000_000,
    b'{"type": "item.completed", "item": {"type": "agent_message", "text": "' + b"y" * 3_000_000 + b'"}}',
    b'{"atoll": "message", "text": "' + b"y" * 3_000_000 + b'"}',
    b'{"type": "result", "subtype": "success", "result": "' + b"y" * 3_000_000 + b'"}',
)
SAID_BYTES_MAX = 2**21
DONE = Exit(0)


class AgentConformance:
    """Give `agent`, the lines `good` of a run that succeeds, and its `output`; `threaded` when they name a thread."""

    agent: ClassVar[Agent]
    good: ClassVar[Sequence[bytes]]
    output: ClassVar[str]
    threaded: ClassVar[bool] = True

    def ran(self, lines: Sequence[bytes], exit: Exit | None = DONE, thread: str = "") -> tuple[Outcome, list[Said]]:
        reader = self.agent.reader(thread)
        said = [one for line in lines for one in reader.line(line)]
        return reader.end(exit), said

    def start(self, thread: str = "", **changes: Any) -> Start:
        return self.agent.start(replace(SPEC, **changes), PLACE, thread)

    def test_a_run_that_goes_well_has_its_answer(self) -> None:
        outcome, said = self.ran(self.good)
        assert outcome.ok and outcome.output == self.output and outcome.error == ""
        assert said and {one.type for one in said} <= EVENTS
        assert bool(outcome.agent_thread) == self.threaded

    @pytest.mark.parametrize("exit", [Exit(1), Exit(137, signal=9), Exit(143, signal=15, timed_out=True)])
    def test_a_program_that_ends_badly_failed_whatever_it_said(self, exit: Exit) -> None:
        outcome, _ = self.ran(self.good, exit)
        assert not outcome.ok and outcome.error

    def test_lines_that_never_came_are_no_success(self) -> None:
        for lines in ((), self.good[:1]):
            outcome, _ = self.ran(lines, None)
            assert not outcome.ok and outcome.error

    def test_an_error_says_what_stderr_said_and_no_more_than_its_end(self) -> None:
        reader = self.agent.reader()
        reader.stderr(b"\xff" + b"noise\n" * 1_000_000)
        reader.stderr(b"the reason\n")
        error = reader.end(Exit(2)).error
        assert error.endswith("the reason") and len(error) < 70_000

    @pytest.mark.parametrize("line", ODD, ids=range(len(ODD)))
    def test_odd_lines_are_no_errors_and_change_nothing_of_the_rest(self, line: bytes) -> None:
        for lines in ((line, *self.good), (*self.good[:-1], line, self.good[-1])):
            outcome, said = self.ran(lines)
            assert outcome.ok
            check(outcome, said)

    def test_half_a_line_at_the_end_is_no_error(self) -> None:
        for cut in range(0, len(self.good[-1]), 7):
            outcome, said = self.ran((*self.good[:-1], self.good[-1][:cut]))
            check(outcome, said)

    @pytest.mark.parametrize("line", HUGE, ids=range(len(HUGE)))
    def test_what_huge_lines_say_is_bounded(self, line: bytes) -> None:
        outcome, said = self.ran((line, *self.good))
        check(outcome, said)

    def test_a_reader_that_is_read_on_stays_small(self) -> None:
        reader = self.agent.reader()
        for _ in range(200):
            for line in (*ODD[:8], b"z" * 20_000, *self.good[:-1]):
                check(None, list(reader.line(line)))
        check(reader.end(DONE), [])

    def test_a_conversation_goes_on_with_what_its_reader_told(self) -> None:
        outcome, _ = self.ran(self.good)
        assert self.start(outcome.agent_thread) != self.start() or not self.threaded
        assert self.ran(self.good, thread=outcome.agent_thread)[0].agent_thread == outcome.agent_thread

    @pytest.mark.parametrize("thread", ["--help", "; rm -rf /", "a\0b", "../../x", "x" * 10_000, "{}", "\n"])
    def test_a_thread_that_is_none_is_never_an_option(self, thread: str) -> None:
        start = self.start(thread)
        assert start.argv == self.start().argv
        assert all("\0" not in value and len(value) < 2_000 for value in start.env.values())

    @pytest.mark.parametrize(
        "prompt", ["$(id) `id` ; id", "--help", "-", "a\nb", 'it\'s "it"', "\ud800 \0", "ü" * 90_000]
    )
    def test_the_prompt_is_data_not_an_argument_for_a_shell(self, prompt: str) -> None:
        start, plain = self.start(prompt=prompt), self.start()
        assert start.argv == plain.argv and start.argv[0] not in ("sh", "bash", "/bin/sh", "/bin/bash")
        assert start.stdin.decode() == prompt.replace("\0", "\ufffd").encode(errors="replace").decode()
        assert all(b"\0" not in value.encode() and len(value.encode()) < 131_072 for value in start.env.values())

    @pytest.mark.parametrize("words", ['"] evil = true\n[x', "\x7f\x01\u2028", "]]>'''\\", "\ud800\0"])
    def test_instructions_and_servers_stay_what_they_are(self, words: str) -> None:
        servers = (McpServer("one", ("run", words)), McpServer("two", url="http://127.0.0.1:1/" + words))
        start = self.start(instructions=words, mcp_servers=servers)
        for path, content in start.files.items():
            assert content.decode()
            assert not path.startswith("/") and ".." not in path.split("/") and len(content) < 2**20
        assert all("\0" not in word for word in start.argv)

    def test_it_keeps_to_the_thread_s_folder_and_needs_no_key(self) -> None:
        start = self.start(mcp_servers=(McpServer("one", ("run",)),))
        told = json.dumps([start.argv, dict(start.env), {p: c.decode() for p, c in start.files.items()}])
        assert PLACE.model_url in told
        assert PLACE.home in json.dumps([start.argv, dict(start.env)])
        assert start.argv[0].startswith(f"{PLACE.layer}/") or self.agent.package is None

    def test_it_refuses_what_it_cannot_do_by_the_field_s_name(self) -> None:
        with pytest.raises(InvalidInput) as refused:
            self.start(prompt=" \n", command=())
        assert refused.value.field in ("prompt", "command")

    def test_two_readers_know_nothing_of_each_other(self) -> None:
        self.ran(self.good)
        outcome, _ = self.ran(())
        assert (outcome.output, outcome.agent_thread) == ("", "")


def check(outcome: Outcome | None, said: Sequence[Said]) -> None:
    """Everything is JSON in UTF-8 without NUL, and bounded."""
    whole: list[Any] = [[one.type, dict(one.data)] for one in said]
    if outcome is not None:
        whole += [outcome.output, outcome.error, outcome.agent_thread]
        if outcome.tokens is not None:
            tokens = (outcome.tokens.input, outcome.tokens.output, outcome.tokens.cached, outcome.tokens.reasoning)
            assert all(0 <= count < 2**63 for count in tokens)
    assert {one.type for one in said} <= EVENTS
    encoded = json.dumps(whole, ensure_ascii=False, allow_nan=False).encode()
    assert len(encoded) <= SAID_BYTES_MAX
    assert "\0" not in "".join(_texts(whole))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in cast("dict[str, object]", value).items():
            yield name
            yield from _texts(each)
    elif isinstance(value, list):
        for each in cast("list[object]", value):
            yield from _texts(each)
