"""The code blocks of a Markdown page; the tests of the docs run those whose info string says `run`.

A block "sh run" or "python run" is run, "sh run root" by root only. A block "text output" after it is what it printed;
`...` in such a line stands for anything, and a line that is only `...` for any lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A block to run. `output` is what the page says it prints, None when it does not say."""

    page: Path
    line: int
    language: str
    code: str
    output: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def runnable(page: Path) -> list[Block]:
    """The blocks of a page that are to be run, in order."""
    fences = [(match["info"].split(), match["body"], match.start()) for match in _FENCE.finditer(page.read_text())]
    return list(_runnable(page, fences))


def _runnable(page: Path, fences: list[tuple[list[str], str, int]]) -> Iterator[Block]:
    text = page.read_text()
    for at, (info, body, start) in enumerate(fences):
        if info[1:] != ["run"] and not (info[1:] == ["run", "root"] and os.geteuid() == 0):
            continue
        following = fences[at + 1] if at + 1 < len(fences) else ([], "", 0)
        output = following[1] if following[0] == ["text", "output"] else None
        yield Block(page, text.count("\n", 0, start) + 1, info[0], body, output)


def matches(said: str, printed: str) -> bool:
    """Whether what a page says was printed is what was printed."""
    pattern = ""
    for line in said.rstrip("\n").split("\n"):
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += ".*".join(re.escape(part) for part in line.rstrip().split("...")) + r"[ \t]*\n"
    return re.fullmatch(pattern, printed.rstrip("\n") + "\n") is not None
