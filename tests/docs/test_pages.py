"""The docs say everything: each error code, metric, setting and route has its line, and each link leads somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from atoll.app import create_app
from atoll.domain.data_folder import DataFolder, default_data_folder
from atoll.domain.errors import AtollError
from atoll.domain.mounts import MOUNTS_MAX
from atoll.domain.tree import DEPTH_MAX, PATH_BYTES_MAX
from atoll.services.limits import Limits
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.sharing import TARGETS_MAX
from atoll.settings import Settings
from atoll.surfaces.operation import WEBSOCKET
from atoll.surfaces.statuses import TABLE
from atoll.telemetry.metrics import Metrics
from atoll.testing.fake_runtime import FakeRuntime
from atoll.testing.memory_records import MemoryRecords
from tests.docs.blocks import PAGES, ROOT, Block, runnable

DOCS = ROOT / "docs"
WORKSPACES, OF_THEM = Settings().workspaces, WorkspaceLimits()
BOUNDS = (Settings().limits.defaults, Settings().limits.maxima)
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


@pytest.mark.parametrize(
    "block", [one for page in PAGES for one in runnable(page) if "owner.key" in one.code], ids=lambda one: one.name
)
@pytest.mark.parametrize("xdg", [False, True])
def test_the_owner_key_is_looked_for_where_it_lies_when_atoll_data_is_unset(
    block: Block, xdg: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ATOLL_DATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if xdg:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    said = re.search(r"^data=.*$", block.code, re.MULTILINE)
    assert said is not None and 'cat "$data/owner.key"' in block.code
    shell = ["bash", "-euc", said[0] + '; echo "$data/owner.key"']
    printed = subprocess.run(shell, capture_output=True, text=True, timeout=10, check=True).stdout
    assert Path(printed.strip()) == DataFolder(default_data_folder()).owner_key


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
    routes = re.findall(r"`(GET|HEAD|POST|PUT|PATCH|DELETE) (/[^`?]*)`", (DOCS / "api.md").read_text())
    assert set(routes) == served()


def served() -> set[tuple[str, str]]:
    """Method and path of everything that the application serves."""
    application = create_app(Settings(), runtime=FakeRuntime(), records=MemoryRecords())
    return {("GET" if one.method == WEBSOCKET else one.method, one.path) for one in application.operations}


def amount(number: float) -> str:
    """As the limits page writes it: 512 MiB, 8 GiB, 32,768."""
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size and number % size == 0:
            return f"{number // size:.0f} {unit}"
    return f"{number:,.0f}"


@pytest.mark.parametrize(
    ("row", "numbers"),
    [
        ("CPU", [f"{Settings().limits.defaults.cpu_millis}", f"{Settings().limits.maxima.cpu_millis // 1000} CPUs"]),
        ("memory", [amount(each.memory_bytes) for each in BOUNDS]),
        ("processes and threads", [f"{each.pids:,}" for each in BOUNDS]),
        ("writable layer", [amount(each.disk_bytes) for each in BOUNDS]),
        ("files and directories", [f"{each.inodes:,}" for each in BOUNDS]),
        ("JSON body", [amount(Settings().server.body_bytes)]),
        ("WebSocket message", [amount(Settings().server.frame_bytes)]),
        ("output in the answer", [amount(Settings().limits.run_output_bytes)]),
        ("output kept", [amount(Settings().limits.output_ring_bytes)]),
        ("the main process's log", [amount(Limits().log_bytes_max)]),
        ("arguments", [f"{Limits().argv_max:,}", amount(Limits().argv_bytes_max)]),
        ("environment", [f"{Limits().env_max:,}", amount(Limits().env_bytes_max)]),
        ("ports", [str(Limits().ports_max)]),
        ("live sandboxes of", [str(Settings().limits.max_sandboxes_per_key)]),
        ("live sandboxes in", [f"{Settings().limits.max_sandboxes:,}"]),
        (
            "TCP streams",
            [
                str(Limits().tcp_streams_per_sandbox),
                f"key {Limits().tcp_streams_per_key}",
                f"{Limits().tcp_streams_max:,}",
                f"{Limits().half_closed_s:g} s",
            ],
        ),
        ("open WebSockets", [str(Settings().limits.ws_per_key)]),
        ("requests of", [f"{Settings().rates.key_per_s:g}", str(Settings().rates.key_burst)]),
        ("requests from", [f"{Settings().rates.address_per_s:g}", str(Settings().rates.address_burst)]),
        ("records of", [f"{Settings().sandboxes.ended_retention_days:g} days"]),
        ("use log", [f"{Settings().keys.use_retention_days:g} days"]),
        ("baked template", [str(Limits().layers_max), f"{Settings().images.layers_bytes // 2**30} GiB"]),
        ("bytes in a workspace", [amount(WORKSPACES.quota_bytes), amount(WORKSPACES.max_quota_bytes)]),
        ("inodes in a workspace", [f"{WORKSPACES.quota_inodes:,}", f"{WORKSPACES.max_quota_inodes:,}"]),
        ("workspaces of a standard key", [f"{WORKSPACES.max_per_key:,}"]),
        ("workspaces in one sandbox", [str(MOUNTS_MAX)]),
        ("name; description; tags", [f"{n:,}" for n in (OF_THEM.name_chars_max, OF_THEM.text_chars_max)]),
        ("automatic revisions kept", [str(WORKSPACES.revisions_kept)]),
        ("snapshots kept", [str(WORKSPACES.snapshots_kept)]),
        ("old trees", [str(OF_THEM.old_trees_max)]),
        ("collaborators named", [str(TARGETS_MAX)]),
        ("path in a workspace", [f"{PATH_BYTES_MAX:,}", str(DEPTH_MAX)]),
        ("an archive to import", [amount(WORKSPACES.import_bytes), f"{WORKSPACES.import_entries:,}"]),
        ("changes in the answer", [f"{OF_THEM.diff_changes_max:,}"]),
        ("unified diffs", [amount(OF_THEM.diff_text_bytes_max), amount(OF_THEM.diff_texts_bytes_max)]),
    ],
)
def test_the_limits_page_has_the_programs_own_numbers(row: str, numbers: list[str]) -> None:
    lines = [line for line in (DOCS / "limits.md").read_text().splitlines() if line.startswith(f"| {row}")]
    assert len(lines) == 1, f"docs/limits.md has {len(lines)} rows that begin with {row}"
    for number in numbers:
        assert number in lines[0], f"docs/limits.md: {row} should say {number}"
