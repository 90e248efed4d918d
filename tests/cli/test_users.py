"""`atoll users`, beside a server that runs, and before the first start."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from atoll.cli import users
from atoll.domain.user import User
from tests.cli.conftest import Atoll

PASSWORD = "correct horse battery"
LOGIN = {"username": "ann", "password": PASSWORD}


@pytest.fixture
def atoll(alone: Callable[..., Atoll]) -> Atoll:
    return alone(ATOLL_RUNTIME="fake")


def post(url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_user_made_here_logs_in_there_and_their_token_is_a_key_until_they_are_disabled(atoll: Atoll) -> None:
    url = json.loads(atoll("up", "--detach", "--port", "0", "--json", timeout=60).stdout)["url"]
    made = atoll("users", "create", "Ann", "--password-stdin", "--name", "Ann A.", stdin=PASSWORD + "\n")
    assert (made.returncode, made.stderr, made.stdout.startswith("user_")) == (0, "", True)
    status, tokens = post(url + "/auth/login", {"username": "ann", "password": PASSWORD})
    assert status == 200, tokens
    ann = Atoll(atoll.environment | {"ATOLL_API_KEY": tokens["access_token"]})
    assert ann("run", "--rm", "--", "echo", "mine").stdout == "mine\n"
    assert "default" in ann("workspace", "list").stdout
    assert atoll("users", "disable", "ann").stdout == made.stdout
    until = time.monotonic() + 10
    while (done := ann("ps")).returncode == 0:
        assert time.monotonic() < until
    assert "your login has expired or was ended" in done.stderr
    assert post(url + "/auth/login", {"username": "ann", "password": PASSWORD})[0] == 401
    assert atoll("users", "enable", "ann").returncode == 0
    assert post(url + "/auth/login", {"username": "ann", "password": PASSWORD})[0] == 200
    kept = Atoll(atoll.environment | {"ATOLL_API_KEY": post(url + "/auth/login", LOGIN)[1]["access_token"]})
    assert kept("workspace", "create", "kept").returncode == 0
    assert atoll("users", "delete", "ann").returncode == 1
    assert kept("workspace", "rm", "kept").returncode == 0
    assert atoll("users", "delete", "ann").stdout == made.stdout  # the default workspace goes with her


@pytest.mark.parametrize("as_json", [False, True])
def test_who_logs_in_elsewhere_is_known_by_their_subject(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = User("user_1", "user_1", datetime.now(UTC), issuer="https://i.example", subject="auth0|17")
    monkeypatch.setattr(users, "_with_users", lambda _data, _work: [made])
    users.list_(None, as_json)
    printed = capsys.readouterr().out
    assert "auth0|17" in printed and "https://i.example" in printed


def test_users_are_made_listed_and_deleted_before_the_first_start(atoll: Atoll) -> None:
    drawn = json.loads(atoll("users", "create", "ann", "--admin", "--generate", "--json").stdout)
    assert len(drawn["password"]) == 24 and drawn["admin"] is True
    assert atoll("users", "create", "ben", "--no-password").returncode == 0
    shown = json.loads(atoll("users", "list", "--json").stdout)
    assert [(one["username"], one["admin"]) for one in shown] == [("ann", True), ("ben", False)]
    assert drawn["password"] not in atoll("users", "list").stdout
    assert atoll("users", "promote", "ben").stdout == atoll("users", "demote", "ben", "ann").stdout.splitlines(True)[0]
    assert [one["admin"] for one in json.loads(atoll("users", "list", "--json").stdout)] == [False, False]
    passwd = atoll("users", "passwd", "ben", "--generate")
    identity, password = passwd.stdout.splitlines()
    assert (identity, len(password)) == (shown[1]["id"], 24)
    assert atoll("users", "delete", "ben", "ann").stdout.split() == [shown[1]["id"], shown[0]["id"]]
    assert atoll("users", "list", "--json").stdout == "[]\n"


def test_what_is_wrong_is_said_and_no_password_is_on_the_command_line(atoll: Atoll) -> None:
    done = atoll("users", "create", "ann")
    assert (done.returncode, "--password-stdin" in done.stderr) == (2, True)
    done = atoll("users", "create", "ann", "--password-stdin", stdin="short\n")
    assert (done.returncode, done.stderr) == (2, "atoll: password must have 12 to 1024 characters\n")
    done = atoll("users", "create", "a b", "--no-password")
    assert (done.returncode, done.stderr.startswith("atoll: username must be")) == (2, True)
    done = atoll("users", "disable", "nobody")
    assert (done.returncode, done.stderr) == (1, "atoll: user not found: 'nobody'\n")
    assert "--password " not in atoll("users", "create", "--help").stdout


def test_of_several_users_those_that_are_done_are_told_before_the_one_that_is_not_there(atoll: Atoll) -> None:
    ann = atoll("users", "create", "ann", "--no-password").stdout
    for command in ("disable", "delete"):
        done = atoll("users", command, "ann", "nobody")
        assert (done.returncode, done.stdout, done.stderr) == (1, ann, "atoll: user not found: 'nobody'\n")


def test_the_key_that_signs_is_replaced_by_hand(atoll: Atoll) -> None:
    first, second = atoll("users", "rotate-key"), atoll("users", "rotate-key", "--revoke")
    assert first.stdout.startswith("sig_") and second.stdout.startswith("sig_") and first.stdout != second.stdout
