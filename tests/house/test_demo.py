"""`make demo` as a newcomer sees it: every step works, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.machine import Machine

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
def test_the_demo_shows_output_files_page_and_an_agents_bill_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        "its output",
        "mandelbrot.txt",
        "its web page",
        "Drawn by Python",
        "undo the change",
        "notes.txt again: ['one', 'two']",
        "log in as them",
        "24 characters in the process",
        "secret.",
        "audit verify",
        "scripted stand-in",
        "balance $5 - $0.",
        "all balances add up to 0",
        "leaving nothing",
    ):
        assert shown in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_the_demo_says_plainly_when_no_server_can_start() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**os.environ, "ATOLL_NO_SUCH_SETTING": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 1
    assert "the demo failed" in done.stdout and "Traceback" not in done.stdout + done.stderr


@pytest.mark.timeout(120)
@pytest.mark.parametrize("after", ["Atoll", "a server on"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_demo_that_is_interrupted_leaves_nothing(
    tmp_path: Path, after: str, number: signal.Signals, code: int
) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-u", "-m", "demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    with demo.stdout as shown:
        assert any(after in line for line in shown)
        time.sleep(0.3)
        os.killpg(demo.pid, number)  # as a terminal does
        rest = shown.read()
    assert demo.wait(60) == code, rest
    assert list(tmp_path.iterdir()) == []
    assert Machine(tmp_path).processes() == []
