"""The page of the architecture names the rooms and layers that there are."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def drawn(heading: str) -> list[str]:
    """The lines of the first drawing after those words."""
    return PAGE.split(heading, 1)[1].split("```text\n", 1)[1].split("\n```", 1)[0].splitlines()


def test_its_layers_are_those_that_imports_are_held_to() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    rooms = [{room.strip("() ") for room in layer.replace(":", "|").split("|")} for layer in layers]
    assert [set(line.split(" | ")) for line in drawn("Layers, top to bottom")] == rooms


def test_its_rooms_are_the_modules_that_there_are() -> None:
    below = ROOT / "src" / "atoll"
    found = {f"{one.parent.name}/" for one in below.glob("*/__init__.py")}
    found |= {one.name for one in below.glob("*.py") if one.name != "__init__.py"}
    named = {line.split()[0] for line in drawn("## Rooms")[1:] if line[2] != " "}
    assert named == found
