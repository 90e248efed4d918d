"""Workspaces over HTTP: what `/v1/workspaces` promises of each call, as docs/workspaces-api.md writes it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from atoll.surfaces.workspaces import answers
from tests.surfaces.workspaces.client import Client


async def test_a_new_workspace_has_everything_that_the_contract_lists(house: Any) -> None:
    body = {"name": "one", "description": "d", "tags": ["x", "y"], "quotaBytes": 2**30, "quotaInodes": 1000}
    answer = await house.call("POST", "/v1/workspaces", json=body | {"automatic": False})
    assert answer.status_code == 201
    made = answer.json()
    answers.WorkspaceAnswer.model_validate(made)
    assert {name: made[name] for name in body} == body
    assert (made["permission"], made["owner"], made["automatic"]) == ("owner", "key_a11ce0000000", False)
    assert (made["head"]["number"], made["head"]["reason"], made["head"]["bytes"]) == (1, "created", 0)
    assert made["mounted"] == [] and "forkedFrom" not in made


async def test_it_is_found_by_every_spelling_and_by_its_name(house: Any, ws: Any) -> None:
    digits = ws.ws.removeprefix("ws_")
    for spelled in (ws.ws, f"fs_{digits}", str(uuid.UUID(digits)), "tree"):
        assert (await house.call("GET", f"/v1/workspaces/{spelled}")).json()["id"] == ws.ws


async def test_a_name_with_spaces_and_umlauts_works_in_the_url(house: Any) -> None:
    made = await house.call("POST", "/v1/workspaces", json={"name": "my träe 1"})
    assert made.status_code == 201
    found = await house.call("GET", "/v1/workspaces/my%20tr%C3%A4e%201")
    assert found.json()["id"] == made.json()["id"]


async def test_lists_are_newest_first_and_filtered(house: Any, ws: Any) -> None:
    for name in ("two", "three"):
        await house.call("POST", "/v1/workspaces", json={"name": name, "tags": [name]})

    async def names(query: str) -> list[str]:
        return [one["name"] for one in (await house.call("GET", f"/v1/workspaces{query}")).json()["workspaces"]]

    assert await names("") == ["three", "two", "tree"]
    assert await names("?name=two") == ["two"]
    assert await names("?tag=a") == ["tree"]
    assert await names("?name=nothing") == []


async def test_a_taken_name_is_a_conflict_for_its_owner_only(house: Any, ws: Any, keys: Any) -> None:
    assert (await house.call("POST", "/v1/workspaces", json={"name": "tree"})).status_code == 409
    assert (await house.call("POST", "/v1/workspaces", keys.BOB, json={"name": "tree"})).status_code == 201
    await house.call("POST", "/v1/workspaces", json={"name": "other"})
    assert (await house.call("PATCH", "/v1/workspaces/other", json={"name": "tree"})).status_code == 409


async def test_patch_changes_what_is_given_and_nothing_else(house: Any, ws: Any) -> None:
    before = await ws.ok("GET", "")
    after = await ws.ok("PATCH", "", json={"name": "renamed", "tags": [], "automatic": False, "quotaInodes": 5000})
    changed = {"name", "tags", "automatic", "quotaInodes", "updatedAt"}
    assert {name for name in before if before[name] != after[name]} == changed
    assert (await ws.ok("PATCH", "", json={"description": ""}))["description"] is None


async def test_deleted_it_is_gone(house: Any, ws: Any) -> None:
    assert await ws.ok("DELETE", "") == {"deleted": True}
    assert (await ws.call("GET", "")).status_code == 404
    assert (await ws.call("DELETE", "")).status_code == 404
    assert (await house.call("POST", "/v1/workspaces", json={"name": "tree"})).status_code == 201


async def test_while_a_session_has_it_mounted_it_stays(house: Any, ws: Any) -> None:
    session = await house.create(workspace="tree")
    assert session["workspaces"] == [{"workspace": ws.ws, "path": "/workspace", "readOnly": False}]
    assert (await ws.ok("GET", ""))["mounted"] == [session["id"]]
    assert (await ws.call("DELETE", "")).status_code == 409
    await house.call("DELETE", f"/v1/sessions/{session['id']}")
    assert (await ws.ok("GET", ""))["mounted"] == []
    assert (await ws.call("DELETE", "")).status_code == 200


async def test_sessions_mount_several_workspaces_and_refuse_what_is_wrong(house: Any, ws: Any, keys: Any) -> None:
    await house.call("POST", "/v1/workspaces", json={"name": "docs"})
    mounts = [{"workspace": "tree"}, {"workspace": "docs", "path": "/docs", "readOnly": True}]
    session = await house.create(workspaces=mounts)
    assert [(one["path"], one["readOnly"]) for one in session["workspaces"]] == [("/workspace", False), ("/docs", True)]
    looked = (await house.call("GET", f"/v1/sessions/{session['id']}")).json()
    assert looked["workspaces"] == session["workspaces"]
    assert "workspaces" not in await house.create()
    body = {"image": "host", "network": "none"}
    for wrong, status in (
        ({"workspace": "nothing"}, 404),
        ({"workspace": ""}, 400),
        ({"workspace": "tree", "workspaces": []}, 400),
        ({"workspaces": [{"workspace": "tree", "path": "relative"}]}, 400),
        ({"workspaces": [{"workspace": "tree", "path": "/a/../b"}]}, 400),
        ({"workspaces": [{"workspace": "tree", "path": "/proc/x"}]}, 400),
        ({"workspaces": [{"workspace": "tree"}, {"workspace": "docs"}]}, 400),
        ({"workspaces": [{"workspace": "tree", "mode": 1}]}, 400),
        ({"workspaces": [{}]}, 400),
    ):
        answer = await house.call("POST", "/v1/sessions", json=body | wrong)
        assert answer.status_code == status, (wrong, answer.text)
        if status == 400:
            assert "workspace" in answer.json()["field"], wrong
    answer = await house.call("POST", "/v1/sessions", keys.BOB, json=body | {"workspace": ws.ws})
    assert answer.status_code == 404


async def test_what_a_session_writes_becomes_a_revision(house: Any, ws: Any) -> None:
    session = await house.create(workspace="tree")
    await house.call("POST", f"/v1/sessions/{session['id']}/files?path=/workspace/a.txt", content=b"from inside")
    assert (await ws.ok("POST", "/revisions", json={"message": "kept"}))["message"] == "kept"
    assert await ws.read("a.txt") == b"from inside"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "ws_" + "0" * 32}, "name"),
        ({"name": "n", "tags": "x"}, "tags"),
        ({"name": "n", "tags": [""]}, "tags.0"),
        ({"name": "n", "tags": ["x"] * 65}, "tags"),
        ({"name": "n", "quotaBytes": 0}, "quotaBytes"),
        ({"name": "n", "quotaBytes": 2**52}, "quotaBytes"),
        ({"name": "n", "quotaInodes": -1}, "quotaInodes"),
        ({"name": "n", "description": "x" * 4097}, "description"),
        ({"name": "n", "colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_made(house: Any, body: dict[str, Any], field: str) -> None:
    answer = await house.call("POST", "/v1/workspaces", json=body)
    assert (answer.status_code, answer.json().get("field")) == (400, field), answer.text
    assert (await house.call("GET", "/v1/workspaces")).json() == {"workspaces": []}


async def test_shared_with_bob_it_is_his_to_read_and_no_more(house: Any, ws: Any, keys: Any) -> None:
    await ws.push({"a.txt": b"alice's"})
    bob = "key_b0b000000000"
    path = f"/v1/workspaces/{ws.ws}"
    shared = await ws.ok("PUT", f"/collaborators/{bob}", json={"permission": "read"})
    assert shared == {"collaborators": {bob: "read"}} == await ws.ok("GET", "/collaborators")
    seen = (await house.call("GET", path, keys.BOB)).json()
    assert seen["permission"] == "read"
    assert (await house.call("GET", f"{path}/file?path=a.txt", keys.BOB)).content == b"alice's"
    assert (await house.call("GET", "/v1/workspaces", keys.BOB)).json() == {"workspaces": []}
    listed = (await house.call("GET", "/v1/workspaces?shared=true", keys.BOB)).json()["workspaces"]
    assert [one["id"] for one in listed] == [ws.ws]
    for method, rest, body in (
        ("POST", "/undo", None),
        ("POST", "/revisions", None),
        ("POST", "/restore", {"revision": "1"}),
        ("POST", "/snapshots", None),
        ("PATCH", "", {"name": "his"}),
        ("DELETE", "", None),
        ("PUT", f"/collaborators/{bob}", {"permission": "admin"}),
    ):
        assert (await house.call(method, path + rest, keys.BOB, json=body)).status_code == 403, rest
    await ws.ok("PUT", f"/collaborators/{bob}", json={"permission": "admin"})
    assert (await house.call("POST", f"{path}/undo", keys.BOB)).status_code == 200
    assert (await house.call("DELETE", path, keys.BOB)).status_code == 403
    assert await ws.ok("DELETE", f"/collaborators/{bob}") == {"revoked": True}
    assert (await ws.call("DELETE", f"/collaborators/{bob}")).status_code == 404
    assert (await house.call("GET", path, keys.BOB)).status_code == 404


async def test_fork_and_merge_both_ways(house: Any, ws: Any, keys: Any) -> None:
    await ws.push({"a.txt": b"one\n", "b.txt": b"b"})
    answer = await ws.call("POST", "/fork", json={"name": "twin"})
    assert answer.status_code == 201
    twin = type(ws)(house, answer.json()["id"], keys.ALICE)
    assert answer.json()["lineage"] == (await ws.ok("GET", ""))["lineage"]
    assert answer.json()["forkedFrom"] == (await ws.head())["id"]
    await twin.push({"a.txt": b"theirs\n", "new.txt": b"n"})
    await ws.push({"a.txt": b"ours\n"})
    merged = await ws.ok("POST", "/merge", json={"source": "twin"})
    answers.MergedAnswer.model_validate(merged)
    (conflict,) = merged["conflicts"]
    assert conflict["path"] == "a.txt"
    assert await ws.files() == {"a.txt": b"ours\n", "b.txt": b"b", "new.txt": b"n", conflict["kept"]: b"theirs\n"}
    assert merged["revision"]["reason"] == "merge" and merged["revision"]["merged"]


async def test_verify_reads_everything(ws: Any) -> None:
    await ws.push({"a.txt": b"a" * 3_000_000})
    report = await ws.ok("POST", "/verify")
    assert report["revisions"] == 2 and report["corrupt"] == [] and report["bytes"] >= 1_000_000


async def test_another_workspaces_name_is_one_part_of_the_path(house: Any, ws: Any, keys: Any) -> None:
    for name in ("tree", "files"):  # the second as the parts below a workspace are called
        await house.call("POST", "/v1/workspaces", json={"name": name})
        shared = await house.call("PUT", f"/v1/workspaces/{name}/collaborators/key_b0b000000000", json=READ)
        assert shared.status_code == 200
        for owner in ("alice", "key_a11ce0000000"):
            found = (await house.call("GET", f"/v1/workspaces/{owner}%2f{name}", keys.BOB)).json()
            assert (found["name"], found["permission"], found["ownerName"]) == (name, "read", "alice")
            answers.WorkspaceAnswer.model_validate(found)
            listed = await house.call("GET", f"/v1/workspaces/{owner}%2F{name}/files", keys.BOB)
            assert listed.json()["entries"] == []
    lost = await house.call("GET", "/v1/workspaces/alice%2Fnothing", keys.BOB)
    assert (lost.status_code, lost.json()["error"]) == (404, "workspace not found: 'alice/nothing'")
    nobody = await house.call("PUT", "/v1/workspaces/tree/collaborators/key_000000000000", json=READ)
    assert (nobody.status_code, nobody.json()["code"]) == (400, "BAD_REQUEST")


READ = {"permission": "read"}


async def test_what_is_stored_is_told_to_the_owner_and_to_nobody_else(house: Any, ws: Any, keys: Any) -> None:
    """A collaborator would learn from it which chunks other workspaces of the lineage have."""
    other = await house.call("POST", f"/v1/workspaces/{ws.ws}/fork", json={"name": "other"})
    await Client(house, other.json()["id"], keys.ALICE).push({"secret": b"known elsewhere"})
    await ws.ok("PUT", "/collaborators/key_b0b000000000", json={"permission": "write"})
    bob = Client(house, ws.ws, keys.BOB)
    pushed = await bob.push({"secret": b"known elsewhere"})
    assert "storedBytes" not in pushed
    for path in ("/revisions/HEAD", "/revisions", "", "/sync/head"):
        assert "tored" not in (await bob.call("GET", path)).text
        assert '"storedBytes"' in (await ws.call("GET", path)).text
    taken = await ws.ok("POST", "/revisions")
    assert taken["storedBytes"] >= 0
    assert "tored" not in (await bob.call("POST", "/revisions")).text
    mine = await ws.ok("GET", "")
    answers.WorkspaceAnswer.model_validate(mine)
    assert mine["ownerStoredBytes"] == await house.records.stored_bytes(mine["owner"]) > 0
