"""ComputeSDK's file systems: workspaces under another name, in an envelope of their own."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.surfaces.computesdk import filesystems
from tests.surfaces.workspaces.client import Client


async def create(house: Any, name: str = "project-files") -> dict[str, Any]:
    body = {"name": name, "description": "Project source code"}
    answer = await house.call("POST", "/api/filesystems", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_create_list_get_and_delete(house: Any) -> None:
    made = await create(house)
    filesystems.FilesystemAnswer.model_validate(made)
    assert (made["name"], made["description"]) == ("project-files", "Project source code")
    assert (made["size_bytes"], made["file_count"]) == (0, 0)
    assert (await house.call("GET", "/api/filesystems")).json() == {"filesystems": [made]}
    assert (await house.call("GET", f"/api/filesystems/{made['id']}")).json() == made
    assert (await house.call("DELETE", f"/api/filesystems/{made['id']}")).json() == {"deleted": True}
    gone = await house.call("GET", f"/api/filesystems/{made['id']}")
    assert (gone.status_code, gone.json()) == (404, {"error": "not_found", "message": "workspace not found"})


async def test_an_archive_is_kept_and_gone_back_to(house: Any, keys: Any) -> None:
    made = await create(house)
    tree, path = Client(house, made["id"], keys.ALICE), f"/api/filesystems/{made['id']}"
    nothing = await house.call("POST", path + "/restore")
    expected = {"error": "not_found", "message": "the file system has no archive"}
    assert (nothing.status_code, nothing.json()) == (404, expected)
    await tree.push({"a.txt": b"1", "b.txt": b"22"})
    first = await house.call("POST", path + "/archive", json={"name": "first"})
    assert first.status_code == 201
    archive = first.json()
    assert (archive["filesystem_id"], archive["name"], archive["size_bytes"]) == (made["id"], "first", 3)
    for number in range(7):
        await tree.push({"a.txt": b"%d" % number})
        await house.call("POST", path + "/archive")
    listed = (await house.call("GET", path + "/archives")).json()["archives"]
    assert len(listed) == 8 and listed[-1] == archive  # retention removes none of them
    restored = await house.call("POST", path + "/restore", json={"archive_id": archive["id"]})
    assert restored.json() == {"id": made["id"], "archive_id": archive["id"], "size_bytes": 3, "file_count": 2}
    assert await tree.files() == {"a.txt": b"1", "b.txt": b"22"}
    newest = (await house.call("POST", path + "/restore")).json()
    assert newest["archive_id"] == listed[0]["id"]
    assert (await tree.files())["a.txt"] == b"6"


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": 1}, {"name": "a/b"}, {"name": "n", "size": 1}])
async def test_a_wrong_body_is_told_in_the_envelope(house: Any, body: dict[str, Any]) -> None:
    answer = await house.call("POST", "/api/filesystems", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert set(answer.json()) == {"error", "message"}


async def test_refusals_are_in_the_envelope_too(house: Any) -> None:
    answer = await house.call("GET", "/api/filesystems", None)
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    answer = await house.call("PUT", "/api/filesystems")
    assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
    await create(house)
    answer = await house.call("POST", "/api/filesystems", json={"name": "project-files"})
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
