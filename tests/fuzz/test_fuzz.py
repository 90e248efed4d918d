"""F12: whatever parses bytes of workspaces meets malformed ones with its own refusal, and with nothing else.

A short run, the same each time; `make fuzz` takes longer, and follows the coverage where atheris is installed.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.mutations import mutated

INPUTS = 400
GUIDED_S = 2


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    targets.close()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_f12_malformed_inputs_are_refused(name: str) -> None:
    target = targets.TARGETS[name]
    corpus = target.corpus()
    assert any(target.try_(data) for data in corpus), "no valid input is taken: what is this a test of?"
    found = [f"{fault!r} for {data[:80]!r}" for data, fault in targets.findings(name, mutated(corpus, INPUTS, seed=12))]
    assert not found, found[:5]


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine: make fuzz mutates only"
)
def test_f12_guided_by_coverage(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.fuzz", "tar", "--seconds", str(GUIDED_S), "--seed", "12"]
    root = Path(__file__).parents[2]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "number_of_executed_units" in done.stderr
