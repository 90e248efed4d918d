"""`atoll quota`, without a server and beside one that runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from atoll.cli.failure import Failed
from atoll.cli.quota import parsed
from tests.cli.conftest import Atoll


@pytest.fixture
def atoll(alone: Callable[..., Atoll]) -> Atoll:
    return alone(ATOLL_RUNTIME="fake")


def key(atoll: Atoll, *words: str) -> tuple[str, str]:
    made = json.loads(atoll("keys", "create", "--name", "k", "--json", *words).stdout)
    return made["id"], made["key"]


def test_quotas_are_set_shown_and_taken_back(atoll: Atoll) -> None:
    subject, _ = key(atoll, "--plan", "free")
    words = ("sandboxes_per_day=20", "memory_bytes=4g", "concurrent_sandboxes=unlimited")
    done = json.loads(atoll("quota", "set", subject, *words, "--json").stdout)
    found = {one["name"]: one["limit"] for one in done["quotas"]}
    assert (done["plan"], found["sandboxes_per_day"], found["memory_bytes"]) == ("free", 20, 4 * 2**30)
    assert (found["concurrent_sandboxes"], found["sandbox_s"]) == (None, 60)
    assert "unlimited" in atoll("quota", "show", subject).stdout
    done = json.loads(atoll("quota", "unset", subject, "sandboxes_per_day", "--json").stdout)
    assert {one["name"]: one["limit"] for one in done["quotas"]}["sandboxes_per_day"] == 10
    listed = json.loads(atoll("quota", "show", "--json").stdout)
    assert listed == {subject: {"memory_bytes": 4 * 2**30, "concurrent_sandboxes": None}}


def test_a_user_is_named_and_bytes_are_shown_in_units(atoll: Atoll) -> None:
    made = atoll("users", "create", "ann", "--no-password", "--json")
    assert made.returncode == 0, made.stderr
    subject = json.loads(made.stdout)["id"]
    assert json.loads(atoll("quota", "set", "ann", "memory_bytes=2g", "--json").stdout)["id"] == subject
    assert "2.0G" in atoll("quota", "show", "ann").stdout and "2.0G" in atoll("quota", "show").stdout
    json.loads(atoll("keys", "create", "--name", "hers", "--for", "ann", "--json").stdout)
    (key,) = json.loads(atoll("keys", "list", "--json").stdout)
    assert key["owner"] == subject
    told = json.loads(atoll("audit", "log", "--tenant", "ann", "--json").stdout)
    assert "key.created" in {one["action"] for one in told} and {one["tenant"] for one in told} == {subject}
    assert json.loads(atoll("quota", "unset", "ann", "--json").stdout)["overrides"] == {}


def test_nothing_is_set_when_one_of_several_is_no_quota(atoll: Atoll) -> None:
    subject, _ = key(atoll)
    refused = atoll("quota", "set", subject, "concurrent_sandboxes=1", "nonsense=2")
    assert refused.stderr.startswith("atoll: quotas are executions_per_hour, ")
    assert atoll("quota", "show").stderr == "nothing is set for anybody: the plans hold\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("concurrent_sandboxes", "NAME=AMOUNT, such as"),
        ("=3", "NAME=AMOUNT, such as"),
        ("concurrent_sandboxes=many", "concurrent_sandboxes must be a whole number or unlimited"),
        ("memory_bytes=4x", "memory_bytes must look like 512m"),
    ],
)
def test_what_is_no_amount_is_said(text: str, said: str) -> None:
    with pytest.raises(Failed, match=said):
        parsed(text)


def test_a_server_that_runs_keeps_to_it_within_seconds(alone: Callable[..., Atoll]) -> None:
    atoll = alone(ATOLL_RUNTIME="fake", ATOLL_KEYS__CACHE_S="0")
    up = atoll("up", "--detach", "--port", "0", "--json", timeout=60)
    assert up.returncode == 0, up.stderr
    url = json.loads(up.stdout)["url"]
    try:
        subject, text = key(atoll)
        assert create(url, text)[0] == 201
        done = json.loads(atoll("quota", "set", subject, "concurrent_sandboxes=1", "--json").stdout)
        assert {one["name"]: one["used"] for one in done["quotas"]}["concurrent_sandboxes"] == 1
        status, body = create(url, text)
        assert (status, body["error"]) == (429, "concurrent session limit reached (1/1)")
    finally:
        atoll("down")


def create(url: str, text: str) -> tuple[int, Any]:
    body = json.dumps({"image": "host", "network": "none"}).encode()
    headers = {"authorization": f"Bearer {text}", "content-type": "application/json"}
    try:
        with urlopen(Request(f"{url}/v1/sessions", body, headers), timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
