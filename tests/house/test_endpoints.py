"""docs/endpoints.md: every endpoint that is served, the seed that it is from, a test that is there, and its client.

A new endpoint needs a line of its own there: the failure says which is missing.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from atoll.surfaces.operation import WEBSOCKET
from scripts.openapi import application
from tests.house.seeds import ALL, SEEDS, WS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "endpoints.md"
_ROW = re.compile(r"^\| `([A-Z]+) (/\S*)` \| ([^|]*) \| `([^`|]+)` \| ([^|]*) \|$", re.MULTILINE)
_PARAMETER = re.compile(r"\{[^}]*\}")
# Methods of the one route that takes any are one line.
ANY_METHOD = "/preview/{sandbox}/{port}/{path}"


class Row(NamedTuple):
    """One line of the table."""

    method: str
    path: str
    seeds: str
    test: str
    client: str


def rows() -> list[Row]:
    return [Row(*found) for found in _ROW.findall(PAGE.read_text())]


def plain(path: str) -> str:
    """Without what its parameters are called."""
    return _PARAMETER.sub("{}", path)


def served(folder: Path) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for one in application(str(folder)).operations:
        path = re.sub(r":[a-z]+}", "}", one.path)
        method = ALL if path == ANY_METHOD else WS if one.method == WEBSOCKET else one.method
        found.add((method, path))
    return found


def test_the_table_has_every_endpoint_once_and_no_other(tmp_path: Path) -> None:
    table = [(row.method, row.path) for row in rows()]
    is_served = served(tmp_path)
    missing = "\n".join(
        f"| `{method} {path}` | ... | `tests/...::test_...` | ... |" for method, path in sorted(is_served - set(table))
    )
    assert not missing, f"docs/endpoints.md needs:\n{missing}"
    assert set(table) <= is_served, f"these are served no more: {sorted(set(table) - is_served)}"
    assert len(table) == len(set(table)), "an endpoint has two lines"


def test_q02_every_endpoint_of_every_seed_is_served_and_named_as_that_seeds(tmp_path: Path) -> None:
    of = {(row.method, plain(row.path)): row.seeds for row in rows()}
    missing = [one for one in SEEDS if one[0] not in of.get((one[1], plain(one[2])), "").split(", ")]
    assert not missing
    named = {(seed, *endpoint) for endpoint, seeds in of.items() for seed in seeds.split(", ") if seed.isdigit()}
    assert named == {(seed, method, plain(path)) for seed, method, path in SEEDS}, (
        "a seed is named that has no such one"
    )


def test_every_test_that_the_table_names_is_there() -> None:
    missing = [row for row in rows() if row.test.partition("::")[2] not in functions_of(row.test.partition("::")[0])]
    assert not missing, f"no such test: {[row.test for row in missing]}"


def test_the_table_says_a_client_for_each() -> None:
    assert all(row.client.strip() and row.seeds.strip() for row in rows())


@cache
def functions_of(file: str) -> frozenset[str]:
    """The test functions of a file, without importing it."""
    path = ROOT / file
    if not file.startswith("tests/") or not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text())
    functions = (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(one.name for one in functions if one.name.startswith("test_"))
