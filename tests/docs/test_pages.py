"""The docs say everything: each error code, metric, setting and route has its line, and each link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from atoll.app import create_app
from atoll.domain.errors import AtollError
from atoll.settings import Settings
from atoll.surfaces.execbox.errors import TABLE
from atoll.surfaces.operation import WEBSOCKET
from atoll.telemetry.metrics import Metrics
from atoll.testing.fake_runtime import FakeRuntime
from atoll.testing.memory_records import MemoryRecords
from tests.docs.blocks import PAGES, ROOT

DOCS = ROOT / "docs"
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#([^)\s]+))?\)")


def errors() -> list[type[AtollError]]:
    """Every error class of the tree."""
    found = [AtollError]
    for one in found:
        found += one.__subclasses__()
    return [one for one in found if one.__module__ == "atoll.domain.errors"]


@pytest.mark.parametrize("code", sorted({one.code for one in errors()}))
def test_every_error_code_of_the_tree_is_on_the_page(code: str) -> None:
    assert f"`{code}`" in (DOCS / "api.md").read_text()


@pytest.mark.parametrize("kind", list(TABLE), ids=lambda kind: kind.__name__)
def test_every_error_of_the_wire_is_on_the_page_with_its_status(kind: type[AtollError]) -> None:
    status, code = TABLE[kind]
    assert f"| `{code}` | {status} |" in (DOCS / "api.md").read_text()


def test_every_metric_is_on_the_page() -> None:
    page = (DOCS / "operations.md").read_text()
    for family in Metrics().registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"`{name}`" in page, f"docs/operations.md does not know {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text()):
        found = page.parent / target
        assert found.exists(), f"{page.name} links to {target}"
        if anchor and found.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_path_of_somebodys_machine(page: Path) -> None:
    assert not re.search(r"/(work|home/(?!user\b)\w+|Users)/", page.read_text())


def commands() -> dict[str, list[str]]:
    """Every command's words with its options, from the program itself."""
    from typer.main import get_command

    from atoll.cli.main import application

    found: dict[str, list[str]] = {}

    def walk(command: Any, words: list[str]) -> None:
        for name, one in getattr(command, "commands", {}).items():
            walk(one, [*words, name])
        if not hasattr(command, "commands"):
            shown = [part for part in command.params if not getattr(part, "hidden", False)]
            found[" ".join(words)] = [name for part in shown for name in part.opts if name.startswith("--")]

    walk(get_command(application([])), ["atoll"])
    return found


@pytest.mark.parametrize(("command", "names"), commands().items())
def test_every_command_and_option_is_on_the_page(command: str, names: list[str]) -> None:
    page = (DOCS / "cli.md").read_text().replace("\n", " ")
    assert command in page or f"`{command.split()[-1]}`" in page, f"docs/cli.md does not know {command}"
    for name in names:
        assert f"`{name}" in page or f" {name} " in page, f"docs/cli.md does not know {command} {name}"


def test_every_route_is_on_the_page() -> None:
    routes = re.findall(r"`(GET|POST|PUT|DELETE) (/[^`?]*)`", (DOCS / "api.md").read_text())
    assert set(routes) == served()


def served() -> set[tuple[str, str]]:
    """Method and path of everything that the application serves."""
    application = create_app(Settings(), runtime=FakeRuntime(), records=MemoryRecords())
    return {("GET" if one.method == WEBSOCKET else one.method, one.path) for one in application.operations}
