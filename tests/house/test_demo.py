"""`make demo` as a newcomer sees it: every step works, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
def test_the_demo_shows_output_files_and_page_and_leaves_nothing(tmp_path: Path) -> None:
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
def test_a_demo_that_is_terminated_leaves_nothing(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    with demo.stdout as shown:
        assert any("a server on" in line for line in shown)
        demo.send_signal(signal.SIGTERM)
        rest = shown.read()
    assert demo.wait(60) == 128 + signal.SIGTERM, rest
    assert list(tmp_path.iterdir()) == []
