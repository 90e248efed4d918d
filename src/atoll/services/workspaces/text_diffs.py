"""Text diffs: unified, as `diff -u` writes them, with a bound on the work that one answer may take.

The exact comparison takes time of the square of the lines, and more where they repeat. What is beyond the budget is
told coarsely: all between the first and the last lines that differ, as it was and as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import Match, SequenceMatcher
from itertools import accumulate
from typing import Literal

STEPS = 4_000_000  # of all comparisons of one answer: about a second
CONTEXT = 3  # lines around a change

_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # splitlines would split at more than newlines

Opcode = tuple[Literal["replace", "delete", "insert", "equal"], int, int, int, int]


class Budget:
    """What is left of the steps that one answer may take."""

    def __init__(self, steps: int = STEPS) -> None:
        self.left = steps


def unified(before: str, after: str, old_name: str, new_name: str, budget: Budget) -> str:
    """The diff of two texts with the word of `diff -u` on a last line that does not end; "" for equal ones."""
    old, new = _LINE.findall(before), _LINE.findall(after)
    told: list[str] = []
    for group in _groups(old, new, budget):
        if not told:
            told += [f"--- {old_name}\n", f"+++ {new_name}\n"]
        first, last = group[0], group[-1]
        told.append(f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@\n")
        for kind, i1, i2, j1, j2 in group:
            if kind == "equal":
                told += [_line(" ", line) for line in old[i1:i2]]
            else:
                told += [_line("-", line) for line in old[i1:i2]]
                told += [_line("+", line) for line in new[j1:j2]]
    return "".join(told)


def _groups(old: list[str], new: list[str], budget: Budget) -> Iterable[list[tuple[str, int, int, int, int]]]:
    return _Matcher(old, new, budget).get_grouped_opcodes(CONTEXT)


class _TooMuch(Exception):
    """The budget is used up."""


class _Matcher(SequenceMatcher[str]):
    """Counts its steps before it takes them."""

    def __init__(self, old: list[str], new: list[str], budget: Budget) -> None:
        super().__init__(None, old, new)
        self._budget = budget
        self._old, self._new = old, new
        seen = Counter(new)
        most = len(new) // 100 + 1 if len(new) >= 200 else len(new)  # lines seen more often are passed over
        steps = (1 + (seen[line] if seen[line] <= most else 0) for line in old)
        self._steps = list(accumulate(steps, initial=0))  # those for the lines before each one

    def get_opcodes(self) -> list[Opcode]:
        try:
            return super().get_opcodes()
        except _TooMuch:
            return _coarse(self._old, self._new)

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        end = len(self._old) if ahi is None else ahi
        self._budget.left -= self._steps[end] - self._steps[alo]
        if self._budget.left < 0:
            raise _TooMuch
        return super().find_longest_match(alo, ahi, blo, bhi)


def _coarse(old: Sequence[str], new: Sequence[str]) -> list[Opcode]:
    """What both begin and end with, and one change between."""
    most = min(len(old), len(new))
    head = next((at for at in range(most) if old[at] != new[at]), most)
    tail = next((at for at in range(most - head) if old[-1 - at] != new[-1 - at]), most - head)
    i, j = len(old) - tail, len(new) - tail
    opcodes: list[Opcode] = [
        ("equal", 0, head, 0, head),
        ("replace", head, i, head, j),
        ("equal", i, len(old), j, len(new)),
    ]
    return [opcode for opcode in opcodes if opcode[1] < opcode[2] or opcode[3] < opcode[4]]


def _range(start: int, stop: int) -> str:
    """As the unified format counts lines: from one; of none the line before."""
    length = stop - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"


def _line(mark: str, line: str) -> str:
    return mark + line if line.endswith("\n") else f"{mark}{line}\n\\ No newline at end of file\n"
