"""Terminal Platform's Snapshot API, to the letter of its wire page."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest

from atoll.domain.errors import Unavailable
from atoll.surfaces.terminal_platform.snapshots import human_size
from atoll.testing.memory_blobs import MemoryBlobs
from tests.surfaces.workspaces.client import Client

UNKNOWN = "snap_2020_01_01_000000"


async def default(house: Any, key: str | None) -> Client:
    made = await house.call("POST", "/workspaces", key, json={"name": "default"})
    assert made.status_code == 200, made.text
    return Client(house, made.json()["workspace_id"], key)


async def test_without_a_default_workspace_everything_is_404(house: Any) -> None:
    for method, path, body in (
        ("POST", "/snapshot/create", None),
        ("POST", "/snapshot/restore", {"snapshot_id": UNKNOWN}),
        ("GET", "/snapshot/list", None),
        ("DELETE", f"/snapshot/{UNKNOWN}", None),
    ):
        answer = await house.call(method, path, json=body)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Workspace not found: default"}), path


async def test_create_list_restore_and_delete(house: Any, keys: Any) -> None:
    tree = await default(house, keys.ALICE)
    await tree.push({"a.txt": b"x" * 1229})
    made = (await house.call("POST", "/snapshot/create")).json()
    assert re.fullmatch(r"snap_\d{4}_\d{2}_\d{2}_\d{6}", made["snapshot_id"])
    created = {"success": True, "message": "Snapshot created successfully"}
    assert made == created | {"snapshot_id": made["snapshot_id"], "size": "1.2KB"}
    again = (await house.call("POST", "/snapshot/create")).json()
    assert again["snapshot_id"] != made["snapshot_id"]  # within a second too
    listed = (await house.call("GET", "/snapshot/list")).json()["snapshots"]
    assert [one["snapshot_id"] for one in listed] == [again["snapshot_id"], made["snapshot_id"]]
    assert [one["size"] for one in listed] == [1229, 1229]
    assert datetime.fromisoformat(listed[0]["created_at"]).tzinfo is not None
    await tree.push({"a.txt": b"lost"})
    restored = await house.call("POST", "/snapshot/restore", json={"snapshot_id": made["snapshot_id"]})
    assert restored.status_code == 200
    assert restored.json() == {
        "success": True,
        "message": "Snapshot restored successfully",
        "snapshot_id": made["snapshot_id"],
        "size": None,
    }
    assert await tree.files() == {"a.txt": b"x" * 1229}
    deleted = (await house.call("DELETE", f"/snapshot/{made['snapshot_id']}")).json()
    assert deleted == {
        "success": True,
        "message": "Snapshot deleted successfully",
        "snapshot_id": made["snapshot_id"],
        "size": None,
    }
    assert len((await house.call("GET", "/snapshot/list")).json()["snapshots"]) == 1
    text = (await house.call("GET", "/metrics", None)).text
    assert "snapshot_created_total 2.0" in text and "snapshot_restored_total 1.0" in text
    assert "snapshot_size_bytes_sum 2458.0" in text


async def test_the_newest_five_stay(house: Any, keys: Any) -> None:
    tree = await default(house, keys.ALICE)
    made: list[str] = []
    for number in range(7):
        await tree.push({"a": b"%d" % number})
        made.append((await house.call("POST", "/snapshot/create")).json()["snapshot_id"])
    listed = (await house.call("GET", "/snapshot/list")).json()["snapshots"]
    assert [one["snapshot_id"] for one in listed] == made[:1:-1]


@pytest.mark.parametrize("wrong", ["nonsense", "snap_2020_01_01", "../x", "snap_2020_01_01_000000x", "", "x" * 5000])
async def test_an_id_of_another_form_is_400(house: Any, keys: Any, wrong: str) -> None:
    await default(house, keys.ALICE)
    answer = await house.call("POST", "/snapshot/restore", json={"snapshot_id": wrong})
    assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid snapshot ID format"})
    if wrong and "/" not in wrong:
        answer = await house.call("DELETE", f"/snapshot/{wrong}")
        assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid snapshot ID format"})


async def test_an_unknown_snapshot_is_404(house: Any, keys: Any) -> None:
    await default(house, keys.ALICE)
    expected = {"detail": f"Snapshot not found: {UNKNOWN}"}
    answer = await house.call("POST", "/snapshot/restore", json={"snapshot_id": UNKNOWN})
    assert (answer.status_code, answer.json()) == (404, expected)
    answer = await house.call("DELETE", f"/snapshot/{UNKNOWN}")
    assert (answer.status_code, answer.json()) == (404, expected)


async def test_a_fault_while_creating_is_500_with_its_text(house: Any, keys: Any, monkeypatch: Any) -> None:
    await default(house, keys.ALICE)

    async def broken(*_: Any, **__: Any) -> None:
        raise Unavailable("the blobs are down")

    monkeypatch.setattr(house.app.workspaces.snapshots, "create", broken)
    answer = await house.call("POST", "/snapshot/create")
    assert (answer.status_code, answer.json()) == (500, {"detail": "Snapshot creation failed: the blobs are down"})


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        (b"{}", ["body", "snapshot_id"], "missing"),
        (b'{"snapshot_id": 5}', ["body", "snapshot_id"], "string_type"),
        (b"{", ["body"], "json_invalid"),
        (b"[]", ["body"], "model_type"),
    ],
)
async def test_a_body_that_is_not_valid_is_422_as_fastapi_has_it(house: Any, body: bytes, loc: Any, kind: str) -> None:
    answer = await house.call("POST", "/snapshot/restore", content=body)
    assert answer.status_code == 422
    (wrong,) = answer.json()["detail"]
    assert (wrong["loc"], wrong["type"]) == (loc, kind) and wrong["msg"]
    assert set(wrong) == {"loc", "msg", "type"}


async def test_the_envelope_of_refusals(house: Any) -> None:
    for credential, detail in (
        (None, "Authorization header must start with 'Bearer '"),
        ("Basic abc", "Authorization header must start with 'Bearer '"),
        ("Bearer nonsense", "Invalid or expired token"),
    ):
        headers = {} if credential is None else {"authorization": credential}
        answer = await house.call("GET", "/snapshot/list", None, headers=headers)
        assert (answer.status_code, answer.json()) == (401, {"detail": detail})
        assert answer.headers["www-authenticate"] == "Bearer"
    answer = await house.call("PUT", "/snapshot/list")
    assert (answer.status_code, answer.json(), answer.headers["allow"]) == (
        405,
        {"detail": "Method Not Allowed"},
        "GET",
    )
    large = await house.call("POST", "/snapshot/restore", content=b"x" * (11 * 2**20))
    assert (large.status_code, list(large.json())) == (413, ["detail"])


async def test_blobs_that_are_there_again_are_used_again(open_house: Any, keys: Any) -> None:
    async with open_house(blobs=MemoryBlobs()) as house:
        tree = await default(house, keys.ALICE)
        await tree.push({"a": b"1"})
        assert (await house.call("POST", "/snapshot/create")).status_code == 200


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0B"), (1023, "1023.0B"), (1229, "1.2KB"), (5 * 2**20, "5.0MB"), (2**30, "1.0GB"), (2**50, "1024.0TB")],
)
def test_sizes_read_as_upstreams(size: int, text: str) -> None:
    assert human_size(size) == text
