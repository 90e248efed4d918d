"""Unified diffs equal difflib's; what would take too long is told coarsely, and is right all the same."""

from __future__ import annotations

import difflib
import random
import time

from hypothesis import given
from hypothesis import strategies as st

from atoll.services.workspaces.text_diffs import Budget, unified

LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "", "d\n"]), max_size=30).map("".join)


@given(LINES, LINES)
def test_it_is_what_difflib_says(before: str, after: str) -> None:
    plain = difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), "x", "y")
    assert unified(before, after, "x", "y", Budget()) == "".join(plain)


def test_a_last_line_that_does_not_end_is_told() -> None:
    told = unified("a\nb", "a\nc\n", "x", "y", Budget())
    assert told == "--- x\n+++ y\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n"


@given(LINES, LINES)
def test_beyond_the_budget_all_between_is_one_change(before: str, after: str) -> None:
    told = unified(before, after, "x", "y", Budget(0))
    assert (told == "") is (before == after)
    assert told.count("@@ -") == (before != after)
    gone = [line[1:] for line in told.splitlines() if line[0] in "- " and line != "--- x"]
    came = [line[1:] for line in told.splitlines() if line[0] in "+ " and line != "+++ y"]
    assert "\n".join(gone) in before and "\n".join(came) in after


def test_r06_lines_that_repeat_just_seldom_enough_do_not_hold_a_thread() -> None:
    chance = random.Random(1)
    before, after = ("".join(f"{chance.randrange(101):02}\n" for _ in range(80_000)) for _ in range(2))
    interleaved = "".join(f"{at}\nx{at}\n" for at in range(15_000)), "".join(f"{at}\ny{at}\n" for at in range(15_000))
    budget = Budget()
    began = time.process_time()
    for old, new in ((before, after), interleaved):
        assert unified(old, new, "x", "y", budget).startswith("--- x\n+++ y\n@@ ")
    assert time.process_time() - began < 10
