"""`atoll keys`, without a server and beside one that runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.cli.conftest import Atoll

ADMIN = "adm_" + "0123456789abcdef" * 3
BOOTSTRAP = "boot-" + "fedcba9876543210" * 2


@pytest.fixture
def atoll(alone: Callable[..., Atoll]) -> Atoll:
    return alone(ATOLL_RUNTIME="fake", ADMIN_API_KEY=ADMIN, TESTBASE_API_KEYS=BOOTSTRAP)


def ask(url: str, key: str, header: str = "authorization", **body: Any) -> tuple[int, Any]:
    value = f"Bearer {key}" if header == "authorization" else key
    data = json.dumps(body).encode() if body else None
    try:
        with urlopen(Request(url, data, {header: value, "content-type": "application/json"}), timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.timeout(180)
def test_a_key_is_made_with_bounds_renewed_and_forgotten(atoll: Atoll) -> None:
    words = ("--name", "ci", "--plan", "free", "--rate", "2,5", "--prefix", "tb_ci_", "--description", "for ci")
    made = atoll("keys", "create", *words, "--scope", "read", "--expires", "30d")
    assert made.returncode == 0 and re.fullmatch(r"tb_ci_[0-9a-f]{64}\n", made.stdout)
    (listed,) = json.loads(atoll("keys", "list", "--json").stdout)
    assert (listed["plan"], listed["description"], listed["rate"]) == ("free", "for ci", {"per_s": 2.0, "burst": 5})
    renewed = json.loads(atoll("keys", "rotate", listed["id"], "--json").stdout)
    assert renewed["id"] == listed["id"] and renewed["key"].startswith("tb_ci_") and renewed["key"] != made.stdout[:-1]
    used = json.loads(atoll("keys", "usage", listed["id"], "--json").stdout)
    assert used == {"requests": 0, "successful": 0, "last_at": None}
    assert atoll("keys", "delete", listed["id"]).stdout == listed["id"] + "\n"
    assert atoll("keys", "usage", listed["id"]).stderr == f"atoll: key {listed['id']} not found\n"
    assert atoll("keys", "list").stderr == "no keys\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rate", "fast"), "--rate must look like 5 or 5,20, not 'fast'"),
        (("--rate", "0"), "rate must be above 0"),
        (("--prefix", "NO"), "prefix must be"),
        (("--plan", "No Plan"), "plan must be"),
        (("--plan", "nosuch"), "plan must be one of anonymous, "),
        (("--scope", "all"), "--scope must be one of"),
    ],
)
def test_what_is_wrong_is_named(atoll: Atoll, words: tuple[str, ...], said: str) -> None:
    done = atoll("keys", "create", "--name", "x", *words)
    assert done.returncode != 0 and said in done.stderr


@pytest.mark.timeout(180)
def test_the_seeds_environment_names_open_a_server(atoll: Atoll) -> None:
    url = json.loads(atoll("up", "--detach", "--port", "0", "--json", timeout=60).stdout)["url"]
    assert ask(url + "/v1/sessions", BOOTSTRAP)[0] == 200
    assert ask(url + "/v1/sessions", BOOTSTRAP, "x-api-key")[0] == 200
    assert ask(url + "/admin/keys", BOOTSTRAP)[0] == 403
    status, made = ask(url + "/admin/keys", ADMIN, "x-admin-key", name="by http")
    assert status == 201
    assert ask(url + "/v1/sessions", made["key"])[0] == 200
    assert atoll("keys", "revoke", made["id"]).returncode == 0
    until = time.monotonic() + 10
    while ask(url + "/v1/sessions", made["key"])[0] == 200:
        assert time.monotonic() < until
    used = json.loads(atoll("keys", "usage", made["id"], "--json").stdout)
    assert used["requests"] >= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ADMIN_API_KEY", "short"),
        ("ADMIN_API_KEY", "your-admin-key-for-api-management-000"),
        ("TESTBASE_API_KEYS", "0123456789abcdef0123456789abcdef,short"),
        ("TESTBASE_API_KEYS", "change-me-change-me-change-me-change-me"),
    ],
)
def test_a12_a_weak_key_in_the_settings_keeps_the_server_from_starting(atoll: Atoll, name: str, value: str) -> None:
    atoll.environment[name] = value
    done = atoll("up", "--port", "0", timeout=60)
    assert done.returncode != 0
    assert ("admin.api_key" if name == "ADMIN_API_KEY" else "keys.bootstrap") in done.stderr
    assert value not in done.stderr


@pytest.mark.timeout(180)
def test_a_pair_for_object_stores_is_made_listed_and_ended(atoll: Atoll) -> None:
    atoll("keys", "create", "--name", "sync")
    (key,) = json.loads(atoll("keys", "list", "--json").stdout)
    made = json.loads(atoll("keys", "hmac", "create", key["id"], "--json").stdout)
    assert made["key"] == key["id"] and re.fullmatch(r"hmac_[0-9a-f]{24}", made["id"]) and len(made["secret"]) == 40
    settings = atoll("keys", "hmac", "create", key["id"], "--boto").stdout
    assert "gs_access_key_id = hmac_" in settings and "prefer_api = xml" in settings
    listed = atoll("keys", "hmac", "list", "--json").stdout
    assert [one["key"] for one in json.loads(listed)] == [key["id"]] * 2 and made["secret"] not in listed
    assert atoll("keys", "hmac", "revoke", made["id"]).stdout == made["id"] + "\n"
    assert atoll("keys", "hmac", "revoke", made["id"]).stderr == f"atoll: access key {made['id']} not found\n"
    assert atoll("keys", "hmac", "create", "key_000000000000").returncode != 0


def test_settings_of_gsutil_name_an_address_that_it_can_connect_to(alone: Callable[..., Atoll]) -> None:
    atoll = alone(ATOLL_RUNTIME="fake", ATOLL_OBJECTS__HOST="0.0.0.0")
    key = json.loads(atoll("keys", "create", "--name", "sync", "--json").stdout)["id"]
    made = atoll("keys", "hmac", "create", key, "--boto")
    assert "gs_host = 127.0.0.1\ngs_port = 8090\n" in made.stdout
    assert "port 80 " in made.stderr
