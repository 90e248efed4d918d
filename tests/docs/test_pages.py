"""The docs say everything: each error code, metric, setting and route has its line, and each link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atoll.domain.errors import AtollError
from atoll.surfaces.execbox.errors import TABLE
from atoll.telemetry.metrics import Metrics
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
