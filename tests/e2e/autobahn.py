"""The Autobahn suite's client, which tries the WebSocket protocol on a server case by case; the W04 tests run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

# A message that is cut short by a close: the suite wants the close echoed, the library tells that something is missing.
OTHERWISE = {"7.1.5"}
RUN_S = 150.0

Results = dict[str, dict[str, str]]


def suite_or_skip() -> tuple[str, Path]:
    """(a Python 2.7, the folder with autobahntestsuite): `.ci/run` puts it into build/autobahn."""
    folder = Path(os.environ.get("ATOLL_TEST_AUTOBAHN") or Path(__file__).parents[2] / "build" / "autobahn")
    pythons = [*Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"), shutil.which("python2.7") or ""]
    for python in map(str, pythons):
        if python and (folder / "autobahntestsuite").is_dir():
            (folder / "zope" / "__init__.py").touch()
            words = [python, "-c", "import autobahntestsuite.wstest"]
            if subprocess.run(words, env={"PYTHONPATH": str(folder)}, capture_output=True).returncode == 0:
                return python, folder
    pytest.skip("needs a Python 2.7 and autobahntestsuite (see .ci/run)")


def run(suite: tuple[str, Path], url: str, cases: Sequence[str], out: Path) -> Results:
    """What the suite says of each case; `out` is a folder that is made for it."""
    python, folder = suite
    out.mkdir()
    asked = {
        "outdir": str(out / "reports"),
        "servers": [{"agent": "atoll", "url": url}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (out / "fuzzing.json").write_text(json.dumps(asked))
    words = [python, "-m", "autobahntestsuite.wstest", "-m", "fuzzingclient", "-s", str(out / "fuzzing.json")]
    done = subprocess.run(words, env={"PYTHONPATH": str(folder)}, capture_output=True, timeout=RUN_S, cwd=out)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((out / "reports" / "index.json").read_text())["atoll"]


def failed(results: Results) -> dict[str, tuple[str, str]]:
    """The cases that went wrong, and how."""
    return {
        case: (one["behavior"], one["behaviorClose"])
        for case, one in results.items()
        if case not in OTHERWISE and not _passed(one)
    }


def _passed(result: dict[str, str]) -> bool:
    """INFORMATIONAL cases have no right answer. NON-STRICT: invalid UTF-8 is told at the message's end, not before;
    what came before a violation is not answered any more."""
    return result["behavior"] in ("OK", "NON-STRICT", "INFORMATIONAL") and result["behaviorClose"] in (
        "OK",
        "INFORMATIONAL",
    )
