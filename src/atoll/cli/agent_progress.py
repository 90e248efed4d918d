"""What an agent does, line by line on stderr while it works; `atoll agent run` and `atoll tasks events` show it."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from atoll.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from atoll.sdk import RunEvent, TaskUsage

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # an agent's words must not steer this terminal
_KINDS = {"add": "+", "added": "+", "update": "~", "changed": "~", "delete": "-", "deleted": "-"}
_SHOWN_PATHS = 12
_SHOWN_CHARS = 400


def plain(text: object) -> str:
    """Text that can be shown: without control characters, and bytes that are no text as U+FFFD."""
    shown = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _CONTROLS.sub("", shown.replace("\r\n", "\n"))


def price(usage: TaskUsage) -> str:
    """`6,656 tokens, $0.10308`."""
    return f"{usage.total_tokens:,} tokens, ${usage.total_cost:f}"


class Lines:
    """Says each event as lines. The last message is kept back: it is the output, which goes to stdout."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = output.console(stderr=True)
        self._quiet = quiet
        self._kept: str | None = None
        self._doing: tuple[Progress, TaskID] | None = None
        self._told = "starting"
        self._written: list[str] = []

    @contextmanager
    def shown(self) -> Generator[None]:
        """On a terminal: what is going on, how long it takes, what it costs so far."""
        if self._quiet or not self._console.is_terminal:
            yield
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=self._console, transient=True) as bars:
            self._doing = bars, bars.add_task(self._told, total=None)
            yield
        self._doing = None

    def event(self, event: RunEvent) -> None:
        """One of them."""
        if self._quiet:
            return
        if event.type == "message":
            self.flush()
            self._kept = event.text
            return
        if event.type == "output":  # of a plain command: it is what stdout is for
            self.flush()
            self._written.append(event.text)
            self._write(event.text)
            return
        said = lines_of(event)
        if said or event.type in ("task.ended", "sync"):
            if event.type not in ("task.ended", "sync", "usage"):
                self.flush()
            for line in said:
                self._say(line)
        if event.type == "usage":
            from atoll.sdk.task_values import usage_of

            self.status(price(usage_of(event.data)))
        elif event.type == "task.started":
            self.status("working")

    def result(self, text: str) -> None:
        """The output, unless it was all written as it came."""
        if text and "".join(self._written).strip() != text.strip():
            self._write(text)

    def flush(self) -> None:
        """Say the message that was kept back: it was not the last."""
        if self._kept is not None:
            self._say(self._kept)
            self._kept = None

    def status(self, text: str) -> None:
        """What is going on."""
        self._told = text
        if self._doing is not None:
            bars, task = self._doing
            bars.update(task, description=text)

    def note(self, text: str) -> None:
        """A line of ours."""
        if not self._quiet:
            self._say(text)

    def _write(self, text: str) -> None:
        if self._doing is not None:  # it must not stand in the line of what is going on
            self._doing[0].stop()
        ending = "" if text.endswith("\n") else "\n"
        sys.stdout.write((plain(text) if sys.stdout.isatty() else text) + ending)
        sys.stdout.flush()
        if self._doing is not None:
            self._doing[0].start()

    def _say(self, line: str) -> None:
        from rich.text import Text

        self._console.print(Text(plain(line)))


def lines_of(event: RunEvent) -> list[str]:
    """What an event is told as; nothing for most."""
    data = event.data
    if event.type == "command":
        return _command(data)
    if event.type == "file_change":
        return [f"{_KINDS.get(str(one.get('kind')), '~')} {one.get('path')}" for one in _objects(data.get("changes"))]
    if event.type == "tool_call":
        if data.get("status") == "in_progress":
            return []
        tool = ".".join(str(data[name]) for name in ("server", "tool") if data.get(name))
        return [f"* {tool}" + (f" failed: {_short(data.get('error'))}" if data.get("status") == "failed" else "")]
    if event.type == "plan":
        return [f"[{'x' if one.get('completed') else ' '}] {one.get('text')}" for one in _objects(data.get("items"))]
    if event.type == "output":
        return [event.text]
    if event.type in ("warning", "error"):
        return [f"{event.type}: {_short(data.get('message'))}"]
    return _synced(data) if event.type == "sync" else []


def _command(data: Mapping[str, Any]) -> list[str]:
    if data.get("status") == "in_progress":
        return []
    code = data.get("exit_code")
    line = f"$ {_short(data.get('command'))}"
    if code in (0, None):
        return [line]
    return [line, f"  exited with {code}: {_short(data.get('output'), from_end=True)}"]


def _synced(data: Mapping[str, Any]) -> list[str]:
    back = data.get("when") == "after"
    paths = [str(path) for path in cast("list[object]", data.get("received" if back else "sent") or [])]
    sign = "<-" if back else "->"
    lines = [f"{sign} {path}" for path in paths[:_SHOWN_PATHS]]
    if len(paths) > _SHOWN_PATHS:
        lines.append(f"{sign} and {len(paths) - _SHOWN_PATHS} more")
    lines += [
        f"conflict: {one['path']}: {one['reason']}; kept as {one['kept']}" for one in _objects(data.get("conflicts"))
    ]
    return lines + [f"left out: {one['path']}: {one['reason']}" for one in _objects(data.get("leftOut"))]


def _objects(value: object) -> list[Mapping[str, Any]]:
    listed = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Mapping[str, Any]", one) for one in listed if isinstance(one, dict)]


def _short(value: object, *, from_end: bool = False) -> str:
    text = str(value or "").strip()
    if len(text) <= _SHOWN_CHARS:
        return text
    return "..." + text[-_SHOWN_CHARS:] if from_end else text[:_SHOWN_CHARS] + "..."
