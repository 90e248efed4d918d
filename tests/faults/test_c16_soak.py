"""C16: a short soak with a seed of its own; `make soak` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import needs_root
from tests.e2e.server import environment

pytestmark = [pytest.mark.root, needs_root]
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(180)
def test_c16_random_work_and_faults_leave_everything_as_it_should_be() -> None:
    words = ["--minutes", "0.1", "--check", "6", "--fault", "1.5", "--gap", "20", "--seed", "ci"]
    done = subprocess.run(
        [sys.executable, "-m", "soak", *words], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "seed ci: 0 findings" in done.stdout
