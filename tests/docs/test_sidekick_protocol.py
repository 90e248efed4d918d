"""The page of the sidekick's protocol has a row for each operation that there is, of sidekicks and of keepers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atoll.sidekick import keeper, operations

PAGE = Path(__file__).parents[2] / "docs" / "sidekick-protocol.md"


@pytest.mark.parametrize(
    ("number", "there"),
    [(1, set(operations.OPERATIONS)), (2, {"ping", *keeper.OPERATIONS})],  # a keeper answers its ping by itself
    ids=["sidekick", "keeper"],
)
def test_each_operation_has_a_row(number: int, there: set[str]) -> None:
    table = PAGE.read_text().split("| op | fields | answer |\n")[number].split("\n\n", 1)[0]
    cells = [line.split("|")[1] for line in table.splitlines()[1:]]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == there
