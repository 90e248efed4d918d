"""What the README and the docs tell people to type works, in the order in which they tell it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, matches, runnable
from tests.e2e.server import free_port

BLOCK_TIMEOUT_S = 60
BIN = Path(sys.executable).parent
INTERPRETERS = {"sh": ["bash", "-euo", "pipefail"], "python": [sys.executable]}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_work(page: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "here", tmp_path / "data"
    folder.mkdir()
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "120",
        "ATOLL_DATA": str(data),
        "ATOLL_PORT": str(free_port()),
    }
    try:
        for block in runnable(page):
            done = subprocess.run(
                [*INTERPRETERS[block.language], "-c", block.code],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BLOCK_TIMEOUT_S,
            )
            assert done.returncode == 0, f"{block.name} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            if block.output is not None:
                assert matches(block.output, done.stdout), f"{block.name} printed:\n{done.stdout}"
    finally:
        down = [str(BIN / "atoll"), "down", "--data", str(data)]
        subprocess.run(down, env=environment, capture_output=True, timeout=BLOCK_TIMEOUT_S)


def test_the_readme_has_commands_that_run() -> None:
    assert len(runnable(ROOT / "README.md")) >= 3


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("hi\n", "hi\n", True),
        ("hi\n", "ho\n", False),
        ("a ... z\n", "a b c z\n", True),
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
        ("a\n...\nz\n", "a\nb\nc\n", False),
        ("a\n", "a\nb\n", False),
    ],
)
def test_dots_stand_for_anything_and_nothing_else_does(said: str, printed: str, same: bool) -> None:
    assert matches(said, printed) is same
