"""LocalRuntime without its server: who ends it, and what it gets to see of the environment."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.data_folder import DataFolder
from atoll.domain.errors import Unavailable
from atoll.sdk import LocalRuntime, NoModelKey, local_runtime
from atoll.sdk.local_runtime import MODEL_VARIABLES


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that would have run; `up` says where a server is."""
    commands: list[str] = []

    def atoll(*words: str, folder: DataFolder, limit_s: float) -> dict[str, Any]:
        commands.append(words[0])
        folder.owner_key.write_text("sk_key\n")
        return {"url": "http://127.0.0.1:1"}

    monkeypatch.setattr(local_runtime, "_atoll", atoll)
    return commands


def test_the_last_who_needs_the_server_ends_it(tmp_path: Path, asked: list[str]) -> None:
    runtime = LocalRuntime(data=tmp_path)
    assert runtime.connection("command") == ("http://127.0.0.1:1", "sk_key")
    with open(tmp_path / "users.lock") as another:
        fcntl.flock(another, fcntl.LOCK_SH)
        runtime.close()
        assert asked == ["up"]  # another program still needs it
        runtime.connection("command")
    runtime.close()
    runtime.close()
    assert asked == ["up", "up", "down"]


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "atoll.toml").write_text("nonsense = 1\n")
    runtime = LocalRuntime(data=tmp_path)
    with pytest.raises(Unavailable, match="nonsense"):
        runtime.connection("codex")
    monkeypatch.setattr(local_runtime, "_atoll", lambda *words, **how: {})
    runtime.close()


def test_the_server_sees_the_models_keys_and_nothing_that_is_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"OPENAI_API_KEY": "k", "ATOLL_MODELS__OPENAI__BASE_URL": "http://127.0.0.1:2", "PATH": os.environ["PATH"]}
    dropped = (
        "DATABASE_URL",
        "PORT",
        "S3_ENDPOINT",
        "MINIO_BUCKET",
        "ATOLL_URL",
        "ATOLL_API_KEY",
        "ATOLL_DATABASE_URL",
    )
    for name in dropped:
        monkeypatch.setenv(name, "somebody else's")
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "agents").mkdir()
    monkeypatch.setenv("ATOLL_DATA", str(tmp_path))
    found = local_runtime._environment()
    assert found.items() >= kept.items()
    assert not set(dropped) & set(found)
    assert found["ATOLL_AGENTS__STORE"] == str(tmp_path / "agents")  # nothing is fetched twice
    assert "ATOLL_DATA" not in found


@pytest.mark.parametrize("name", [*MODEL_VARIABLES, "ATOLL_MODELS__OPENAI__API_KEY", ""])
def test_a_models_key_may_come_from_the_environment_or_the_settings(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in MODEL_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    runtime = LocalRuntime(data=tmp_path)
    for agent in ("codex", "claude_code", None):
        with pytest.raises(NoModelKey, match="set OPENAI_API_KEY"):
            runtime.connection(agent)
    if name:
        monkeypatch.setenv(name, "x")
    else:
        (tmp_path / "atoll.toml").write_text("")
    runtime.connection("codex")
    runtime.close()
