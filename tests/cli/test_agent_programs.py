"""`atoll agent install, list, remove`: a package of the test's own stands for Codex."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Atoll
from tests.services.agents.packages import PROGRAM, VERSION, wheel


@pytest.fixture
def archive(atoll: Atoll, tmp_path: Path) -> Path:
    for name in [name for name in atoll.environment if name.upper().startswith("PIP_")]:
        del atoll.environment[name]
    atoll.environment |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "index"),
        "PIP_CONFIG_FILE": os.devnull,
        "ATOLL_DATA": str(tmp_path / "data"),
        "ATOLL_AGENTS__CODEX__VERSION": VERSION,
    }
    return wheel(tmp_path / "index", {"codex_cli_bin/bin/codex": PROGRAM}, name="openai-codex-cli-bin")


def test_a_program_is_installed_listed_and_removed(atoll: Atoll, archive: Path) -> None:
    atoll.environment["ATOLL_AGENTS__CODEX__HASH"] = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert "not installed: atoll agent install codex" in atoll("agent", "list").stdout
    done = atoll("agent", "install", "codex", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["agent"], made["version"], made["bytes"]) == ("codex", VERSION, len(PROGRAM))
    [listed] = json.loads(atoll("agent", "list", "--json").stdout)
    assert listed["wanted"] is True and Path(listed["folder"]) == Path(made["folder"])
    del atoll.environment["ATOLL_AGENTS__CODEX__VERSION"], atoll.environment["ATOLL_AGENTS__CODEX__HASH"]
    assert f"{VERSION}" in (shown := atoll("agent", "list").stdout) and "the settings want" in shown
    assert f"removed codex {VERSION}" in atoll("agent", "remove", "codex").stdout
    assert not Path(made["folder"]).exists()
    assert atoll("agent", "remove", "codex").stderr == "codex is not installed\n"


def test_what_cannot_be_installed_says_why_on_one_line(atoll: Atoll, archive: Path) -> None:
    unknown = atoll("agent", "install", "nobody")
    assert unknown.returncode != 0 and "there are: claude_code, codex" in unknown.stderr
    atoll.environment["ATOLL_AGENTS__CODEX__HASH"] = "0" * 64
    changed = atoll("agent", "install", "codex")
    assert changed.returncode != 0 and "is not the package that was expected" in changed.stderr
    archive.unlink()
    gone = atoll("agent", "install", "codex")
    assert gone.returncode != 0 and "agents.codex.folder" in gone.stderr and gone.stdout == ""
