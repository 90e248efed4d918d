from __future__ import annotations

import inspect
import runpy
import shutil
from pathlib import Path
from typing import Any

from atoll.sdk import (
    Agent,
    AsyncAgent,
    AsyncFiles,
    AsyncMarketplace,
    AsyncProcess,
    AsyncRunStream,
    AsyncSandbox,
    AsyncSecrets,
    AsyncTasks,
    AsyncWorkspace,
    Files,
    Marketplace,
    Process,
    RunStream,
    Sandbox,
    Secrets,
    Tasks,
    Workspace,
)

SCRIPT = Path(__file__).parents[2] / "scripts" / "unasync.py"


def test_the_sync_twin_is_what_its_source_says() -> None:
    stale: dict[Path, Any] = runpy.run_path(str(SCRIPT))["stale"]()
    assert [path.name for path in stale] == [], "run: python scripts/unasync.py"


def test_an_old_or_foreign_file_is_noticed(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    for path in (script["SDK"] / "_sync").glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "files.py").write_text("# edited by hand\n")
    (tmp_path / "left.py").write_text("")
    assert sorted(path.name for path in script["stale"](tmp_path)) == ["files.py", "left.py"]


def test_both_twins_offer_the_same_calls_with_the_same_arguments() -> None:
    pairs = (
        (Sandbox, AsyncSandbox),
        (Files, AsyncFiles),
        (Process, AsyncProcess),
        (Workspace, AsyncWorkspace),
        (Secrets, AsyncSecrets),
        (Agent, AsyncAgent),
        (RunStream, AsyncRunStream),
        (Tasks, AsyncTasks),
        (Marketplace, AsyncMarketplace),
    )
    for waits, awaits in pairs:
        names = [name for name in vars(waits) if not name.startswith("_")]
        assert names == [name for name in vars(awaits) if not name.startswith("_")]
        for name in names:
            one, other = getattr(waits, name), getattr(awaits, name)
            if callable(one):
                assert list(inspect.signature(one).parameters) == list(inspect.signature(other).parameters)
                assert not inspect.iscoroutinefunction(one)
