"""`atoll groups` against a server, and keys for owners that have none left."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import Atoll


@pytest.fixture
def atoll(alone: Callable[..., Atoll]) -> Atoll:
    return alone(ATOLL_RUNTIME="fake")


@pytest.mark.timeout(180)
def test_a_group_is_made_used_and_taken_away(atoll: Atoll) -> None:
    assert atoll("up", "--detach", "--port", "0", timeout=60).returncode == 0
    other = json.loads(atoll("keys", "create", "--name", "other", "--json").stdout)
    group = atoll("groups", "create", "team", "--description", "ours").stdout.strip()
    assert group.startswith("grp_")
    (listed,) = json.loads(atoll("groups", "list", "--json").stdout)
    assert (listed["id"], listed["name"], listed["role"], listed["description"]) == (group, "team", "admin", "ours")
    assert atoll("groups", "add", "team", other["id"], "--role", "viewer").stdout.strip() == other["id"]
    assert json.loads(atoll("groups", "role", "team", other["id"], "member", "--json").stdout)["role"] == "member"
    assert {one["role"] for one in json.loads(atoll("groups", "members", group, "--json").stdout)} == {
        "admin",
        "member",
    }
    assert "other" in atoll("groups", "members", "team").stdout
    assert atoll("workspace", "create", "shop", "--group", "team").stdout.startswith("team/shop  ws_")
    assert atoll("workspace", "rm", "team/shop").returncode == 0
    sandbox = atoll("run", "--detach", "--group", "team", "sleep", "60").stdout.strip()
    theirs = Atoll(atoll.environment | {"ATOLL_API_KEY": other["key"]})
    assert sandbox in theirs("ps").stdout
    assert "1 sandboxes" in atoll("groups", "rm", "team").stderr
    assert theirs("kill", sandbox).returncode == 0
    assert theirs("groups", "remove", "team", other["id"]).returncode == 0
    assert sandbox not in theirs("ps", "--all").stdout
    assert atoll("groups", "rename", "team", "crew").stdout.strip() == group
    assert atoll("groups", "rm", "crew").stdout.strip() == "crew"
    assert atoll("groups", "list").stderr.strip() == "no groups"
    said = atoll("run", "--group", "crew", "true").stderr
    assert "no group of yours is called 'crew'" in said


@pytest.mark.timeout(180)
def test_what_a_revoked_key_owns_is_told_and_reached_with_another_key_for_it(atoll: Atoll) -> None:
    made = json.loads(atoll("keys", "create", "--name", "first", "--json").stdout)
    assert atoll("up", "--detach", "--port", "0", timeout=60).returncode == 0
    theirs = Atoll(atoll.environment | {"ATOLL_API_KEY": made["key"]})
    assert theirs("workspace", "create", "w").returncode == 0
    ended = atoll("keys", "revoke", made["id"])
    assert ended.returncode == 0
    assert f"{made['id']} still owns 1 workspaces" in ended.stderr
    assert f"--for {made['id']}" in ended.stderr
    again = json.loads(atoll("keys", "create", "--name", "second", "--for", made["id"], "--json").stdout)
    theirs.environment["ATOLL_API_KEY"] = again["key"]
    (found,) = json.loads(theirs("workspace", "list", "--json").stdout)
    assert (found["name"], found["owner"], found["permission"]) == ("w", made["id"], "owner")
    refused = atoll("keys", "create", "--name", "x", "--for", "key_000000000000")
    assert refused.returncode != 0 and "owns nothing" in refused.stderr
