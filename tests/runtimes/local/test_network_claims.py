"""The file that the servers of a machine share: one at a time, and never half a word of it lost or believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.runtimes.local import network_claims
from atoll.runtimes.local.network_claims import Claims
from tests.runtimes.local import planted


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "claims" / "network")


def test_what_was_saved_is_read_back(path: str) -> None:
    with Claims(path) as claims:
        claims.forwarding_before = "0"
        claims.servers["atoll"] = "at", "100.64.0.0/16"
        claims.save()
    with Claims(path) as claims:
        assert claims.forwarding_before == "0"
        assert claims.servers == {"atoll": ("at", "100.64.0.0/16")}
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o077 == 0


def test_a_file_that_says_nothing_is_removed(path: str) -> None:
    with Claims(path) as claims:
        claims.servers["atoll"] = "at", "100.64.0.0/16"
        claims.save()
    with Claims(path) as claims:
        claims.servers.clear()
        claims.save()
    assert not os.path.exists(path)


def test_what_lies_behind_the_last_line_is_not_believed(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_text("server a at 100.64.0.0/16\nend\nserver b bt 100.65.0.0/16\nforwarding 0\n\nend\n")
    with Claims(path) as claims:
        assert set(claims.servers) == {"a"}
        assert claims.forwarding_before is None


def test_odd_lines_are_passed_over(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_bytes(b"\xff\xff\nserver a\nnonsense\nserver b bt 100.65.0.0/16\n")
    with Claims(path) as claims:
        assert set(claims.servers) == {"b"}


def test_one_process_at_a_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_claims, "_LOCK_TIMEOUT_S", 0.05)
    with Claims(path):
        pid = os.fork()
        if pid == 0:
            try:
                with Claims(path):
                    os._exit(1)
            except TimeoutError:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_file_that_was_removed_while_waiting_is_not_used(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.lockf
    removed: list[int] = []

    def remove_first(fd: int, command: int, length: int) -> None:
        real(fd, command, length)
        if not removed:
            removed.append(fd)
            os.unlink(path)

    monkeypatch.setattr(os, "lockf", remove_first)
    with Claims(path) as claims:
        claims.servers["atoll"] = "at", "100.64.0.0/16"
        claims.save()
    assert os.path.exists(path)


def test_a_link_in_its_place_is_not_followed(path: str, tmp_path: Path) -> None:
    os.makedirs(os.path.dirname(path))
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError), Claims(path):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace: needs root")
def test_each_network_namespace_has_a_file_of_its_own() -> None:
    namespace = planted.Namespace()
    try:
        assert namespace.run(network_claims.default_path) != network_claims.default_path()
        assert namespace.run(network_claims.default_path) == namespace.run(network_claims.default_path)
    finally:
        namespace.close()
