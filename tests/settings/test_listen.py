"""The settings of listeners: a port, a host and a port, and what no server starts with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atoll.settings import Settings, SettingsError, load
from atoll.settings.listen import split


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8000", "127.0.0.1", 8000),
        ("0", "127.0.0.1", 0),
        ("0.0.0.0:8001", "0.0.0.0", 8001),
        ("localhost:1", "localhost", 1),
        ("65535", "127.0.0.1", 65_535),
        ("[::1]:8080", "::1", 8080),
    ],
)
def test_an_address_is_a_port_and_perhaps_a_host(text: str, host: str, port: int) -> None:
    assert split(text, "127.0.0.1") == (host, port)


@pytest.mark.parametrize("nothing", ["", None])
def test_nothing_is_no_address(nothing: str | None) -> None:
    assert Settings.model_validate({"listen": {"sandbox": nothing}}).listen.sandbox is None


@pytest.mark.parametrize(
    "text", ["", ":8000", "::1:8000", "eighty", "-1", "65536", "8000 ", "host:", "host:x", "[]:1", "1_0"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"PORT|port"):
        split(text, "127.0.0.1")


def test_a_file_a_variable_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "atoll.toml").write_text('[listen]\nsandbox = 8000\nagent = "10.0.0.1:8003"\n')
    environ = {"ATOLL_DATA": str(tmp_path), "ATOLL_LISTEN__SNAPSHOT": "8002", "ATOLL_LISTEN__PREVIEW": ""}
    settings = load(environ=environ)
    assert [tuple(one) for one in settings.listen.addresses("127.0.0.1")] == [
        ("listen.sandbox", "127.0.0.1", 8000),
        ("listen.snapshot", "127.0.0.1", 8002),
        ("listen.agent", "10.0.0.1", 8003),
    ]


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"listen": {"testbase": 8080}}, ("listen.testbase", "server.port")),
        ({"listen": {"sandbox": 8000, "agent": "8000"}}, ("listen.agent", "listen.sandbox")),
        ({"listen": {"sandbox": "0.0.0.0:8000", "agent": 8000}}, ("listen.agent", "listen.sandbox")),
        ({"listen": {"sandbox": 8090}, "objects": {"enabled": True}}, ("listen.sandbox", "objects.port")),
    ],
)
def test_two_listeners_at_one_place_are_refused_by_name(
    tmp_path: Path, tree: dict[str, Any], named: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match="give one another") as refused:
        Settings.model_validate({"data": tmp_path} | tree)
    assert all(name in str(refused.value) for name in named)


def test_the_same_port_of_two_addresses_and_free_ones_are_fine(tmp_path: Path) -> None:
    tree = {"sandbox": "127.0.0.2:8080", "agent": 0, "testbase": 0, "preview": "[::1]:8080", "compute": "one.name:8080"}
    assert len(Settings.model_validate({"data": tmp_path, "listen": tree}).addresses) == 6


def test_a_port_that_is_none_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"listen\.sandbox"):
        load(environ={"ATOLL_DATA": str(tmp_path), "ATOLL_LISTEN__SANDBOX": "nonsense"})


@pytest.mark.parametrize("one", ["app.example", "https://app.example/", "https://app.example/path", "null", "ftp://a"])
def test_an_origin_that_is_none_is_refused(tmp_path: Path, one: str) -> None:
    with pytest.raises(SettingsError, match=r"cors_origins"):
        load(environ={"ATOLL_DATA": str(tmp_path), "ATOLL_API__CORS_ORIGINS": one})
