"""Scripts of the stand-in model: the lines of a prompt that say what it does, read afresh with every request.

A request carries its whole conversation, so nothing is remembered: each result of a tool after the prompt is a turn
that is over. `model_stand_in.py` has the list of what a line may say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WITH_TEXT = ("run", "call", "say", "think", "usage", "wait", "slow", "error", "fail", "flood", "line", "clock")
BARE = ("silent", "hang", "break", "end", "garbage", "gzip")
CALLS = ("run", "call")
_TEXT = re.compile(rf"^\s*({'|'.join(WITH_TEXT)})(?::|(?<=error)\s)\s*(.*)$")
_BARE = re.compile(rf"^\s*({'|'.join(BARE)})\s*$")


@dataclass(frozen=True, slots=True)
class Step:
    """One line: what, and its text."""

    kind: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """One part of a conversation that the model is sent: `who` is user, or result for what a tool answered."""

    who: str
    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call, with the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model does in answer to one request."""

    steps: tuple[Step, ...]
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    pause_s: float = 0.0

    @property
    def text(self) -> str:
        """All that it says in it."""
        return "\n".join(step.text for step in self.steps if step.kind == "say")


def read_script(text: str) -> list[Step]:
    """The lines of a prompt that are steps; the others are prose."""
    found: list[Step] = []
    for line in text.splitlines():
        if match := _TEXT.match(line) or _BARE.match(line):
            found.append(Step(match[1], match[2].strip() if match.re is _TEXT else ""))
    return found


def turn_of(conversation: Sequence[Said], tools: Sequence[Tool]) -> Turn:
    """What comes now: the part of the last prompt's script after as many calls as there are results."""
    results: list[str] = []
    for said in reversed(conversation):
        if said.who == "result":
            results.append(said.text)
        elif not said.text.lstrip().startswith("<"):  # agents put words of their own into tags
            return _turn(said.text, results, tools)
    return _turn("", results, tools)


def _turn(prompt: str, results: Sequence[str], tools: Sequence[Tool]) -> Turn:
    steps = read_script(prompt)
    if not steps:
        return Turn((Step("say", f"This is the stand-in model, not a real one. You said: {prompt.strip()[:200]}"),))
    if not tools:
        steps = [step for step in steps if step.kind not in CALLS]
    usage: dict[str, Any] = {}
    pause_s, over, mine = 0.0, 0, list[Step]()
    for step in steps:
        if over > len(results):
            break
        if step.kind == "usage":
            usage = _usage(step.text)
        elif step.kind == "slow":
            pause_s = float(step.text)
        elif step.kind == "clock" and over == len(results):
            mine.append(Step("say", " ".join(["{clock}"] * int(step.text))))
        elif over == len(results):
            mine.append(Step(step.kind, step.text.replace("{result}", results[0] if results else "")))
        over += step.kind in CALLS
    if not any(step.kind in (*CALLS, "say") for step in mine):
        mine.append(Step("say", "Done."))
    return Turn(tuple(mine), usage, pause_s)


def _usage(text: str) -> dict[str, Any]:
    """`input=10 output=2`: whole numbers, and whatever else is written as it stands, as a provider should not."""
    found: dict[str, Any] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        found[name] = int(value) if re.fullmatch(r"-?\d+", value) else value
    return found
