from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.cli.failure import explain
from atoll.sdk import ConnectionFailed, InvalidInput, Unauthenticated
from atoll.sdk.config import DEFAULT_URL, NO_KEY, resolve
from atoll.sdk.local_server import LocalServer, boot_id, start_ticks, write_note


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that has had a server, and an environment that names nothing else."""
    monkeypatch.setenv("ATOLL_DATA", str(tmp_path))
    monkeypatch.delenv("ATOLL_URL", raising=False)
    monkeypatch.delenv("ATOLL_API_KEY", raising=False)
    (tmp_path / "owner.key").write_text("sk_own\n")
    return tmp_path


def note(data: Path, *, alive: bool) -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    write_note(data, LocalServer(os.getpid(), "http://127.0.0.1:4321", 0.0, boot_id(), ticks + (not alive)))


def test_a_server_that_runs_is_found_with_its_key(data: Path) -> None:
    note(data, alive=True)
    assert (resolve().url, resolve().api_key) == ("http://127.0.0.1:4321", "sk_own")
    assert resolve(api_key="sk_other").url == "http://127.0.0.1:4321"


@pytest.mark.parametrize("key", [None, "sk_other"])
def test_one_that_died_is_named_with_what_starts_it(
    data: Path, key: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    note(data, alive=False)
    with pytest.raises(ConnectionFailed) as caught:
        resolve(api_key=key)
    assert explain(caught.value) == 1
    said = f"atoll: the server of {data} is not running: `atoll up` starts it, ATOLL_URL names another\n"
    assert capsys.readouterr().err == said


def test_the_owners_key_is_not_sent_to_whoever_listens_at_the_usual_place(data: Path) -> None:
    with pytest.raises(ConnectionFailed, match="is not running"):
        resolve()
    assert resolve("http://127.0.0.1:5").api_key == "sk_own"


def test_a_key_alone_is_for_the_usual_place_where_there_never_was_a_server(data: Path) -> None:
    (data / "owner.key").unlink()
    assert resolve(api_key="sk_other").url == DEFAULT_URL


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_key_is_not_taken_for_the_owner(data: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    note(data, alive=True)
    with pytest.raises(InvalidInput, match=r"ATOLL_API_KEY\) is empty"):
        resolve(api_key=empty)
    assert resolve().api_key == "sk_own"
    monkeypatch.setenv("ATOLL_API_KEY", empty)
    with pytest.raises(InvalidInput, match=r"ATOLL_API_KEY\) is empty"):
        resolve()


@pytest.mark.parametrize("left", ["owner.key", "server.lock", "atoll.db"])
def test_a_key_is_not_sent_elsewhere_when_this_machines_own_server_is_down(data: Path, left: str) -> None:
    (data / "owner.key").unlink()
    resolve(api_key="sk_other")
    note(data, alive=True)
    (data / left).write_text("")
    assert resolve(api_key="sk_other").url == "http://127.0.0.1:4321"
    (data / "server.json").unlink()
    with pytest.raises(ConnectionFailed, match="is not running"):
        resolve(api_key="sk_other")


def test_a_folder_that_this_user_may_not_read_is_said(data: Path) -> None:
    note(data, alive=True)
    data.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        with pytest.raises(Unauthenticated, match=r"may not read .* \(permission denied\)"):
            resolve()
    finally:
        os.seteuid(user)
        data.chmod(0o700)


def test_inside_a_sandbox_no_key_is_needed_where_its_gate_is(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "owner.key").unlink()
    monkeypatch.setenv("ATOLL_SANDBOX_ID", "sess_000000000001")
    monkeypatch.setenv("ATOLL_URL", "http://127.0.0.1:980")
    assert resolve().api_key == NO_KEY
    with pytest.raises(Unauthenticated):
        resolve("http://127.0.0.1:981")
    assert resolve(api_key="sk_other").api_key == "sk_other"
