"""What may import what, where import-linter cannot say it: inside a sandbox there is only the standard library.

`make check` proves the layers; these tests read the source itself, so a dependency that nobody listed is seen too.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def imported(path: Path) -> Iterator[str]:
    """The full dotted names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""


@pytest.mark.parametrize("room", ["domain", "sidekick"])
def test_a_room_that_runs_in_a_sandbox_imports_the_standard_library_only(room: str) -> None:
    allowed = {"domain": ("atoll.domain",), "sidekick": ("atoll.domain", "atoll.sidekick")}[room]
    files = list((SRC / "atoll" / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            if name.split(".")[0] == "atoll":
                assert name.startswith(allowed), f"{path} imports {name}"
            else:
                assert name.split(".")[0] in sys.stdlib_module_names, f"{path} imports {name}"


def test_the_import_contract_names_every_dependency_as_forbidden_inside_a_sandbox() -> None:
    requirements = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["postgres"]
    names = {re.split(r"[\[<>=~! ]", line)[0].replace("-", "_") for line in requirements}
    # What some are imported as.
    names = {
        {"argon2_cffi": "argon2", "dnspython": "dns", "pyjwt": "jwt", "python_dotenv": "dotenv"}.get(name, name)
        for name in names
    }
    contract = PROJECT["tool"]["importlinter"]["contracts"][-1]
    assert set(contract["forbidden_modules"]) == names


def test_every_room_of_the_tree_is_a_layer_of_the_contract() -> None:
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    declared = {re.sub(r"[() ]", "", name) for layer in layers for name in re.split(r"[|:]", layer)}
    present = {path.stem for path in (SRC / "atoll").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert present - {"__init__", "__pycache__"} <= declared
