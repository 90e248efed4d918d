"""What ends with a sandbox of the gateway and what does not: its workspace, its children, its tokens, over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain import crash
from atoll.domain.sandbox import SandboxState
from atoll.services.daemon import own_sandboxes
from atoll.services.daemon.own_sandboxes import NAME_PREFIX, TAG
from atoll.testing.fake_runtime import FakeHost
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault
from tests.surfaces import conftest
from tests.surfaces.conftest import ALICE, House, Opener


async def made(house: House, **body: Any) -> dict[str, Any]:
    answer = await house.call("POST", "/v1/sandboxes", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


def workspace_of(house: House, sandbox_id: str) -> str:
    return house.records._sandboxes[sandbox_id].spec.workspaces[0].workspace


async def soon(house: House, wanted: set[str]) -> None:
    """Those are the workspaces that are left."""
    await until(lambda: {one.id for one in workspaces(house)} == wanted)


def workspaces(house: House) -> list[Any]:
    return [one for one in house.records._workspaces.values() if one.deleted_at is None]


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to hold")


async def test_a_sandbox_that_rests_keeps_its_workspace_and_a_fork_outlives_it(open_house: Opener) -> None:
    async with open_house() as house:
        one = (await made(house))["sandboxId"]
        workspace = workspace_of(house, one)
        forked = await house.call("POST", f"/v1/workspaces/{workspace}/fork", json={"name": "mine"})
        assert forked.status_code == 201, forked.text
        assert TAG in forked.json()["tags"]
        other = await house.create(workspace=workspace)
        assert (await house.call("POST", f"/v1/sessions/{one}/suspend")).status_code == 200
        await house.call("DELETE", f"/v1/sessions/{other['id']}")
        await asyncio.sleep(0.1)
        assert workspace in {found.id for found in await house.records.list_workspaces()}
        woken = await house.call("POST", f"/v1/sessions/{one}/exec", json={"command": "true"})
        assert woken.status_code == 200, woken.text
        await house.call("DELETE", f"/v1/sandboxes/{one}")
        await soon(house, {forked.json()["id"]})


async def test_a_workspace_that_was_renamed_is_kept(open_house: Opener) -> None:
    async with open_house() as house:
        one = (await made(house))["sandboxId"]
        workspace = workspace_of(house, one)
        await house.call("PATCH", f"/v1/workspaces/{workspace}", json={"name": "results"})
        gone = (await made(house))["sandboxId"]
        for sandbox_id in (one, gone):
            await house.call("DELETE", f"/v1/sandboxes/{sandbox_id}")
        await soon(house, {workspace})


async def test_one_that_begins_as_a_snapshot_is_marked_however_many_marks_its_source_has(open_house: Opener) -> None:
    async with open_house() as house:
        full = {"name": "mine", "tags": [f"tag-{number}" for number in range(64)]}
        source = (await house.call("POST", "/v1/workspaces", json=full)).json()["id"]
        kept = (await house.call("POST", f"/v1/workspaces/{source}/snapshots", json={"name": "one"})).json()["id"]
        own = workspace_of(house, (await made(house, snapshotId=kept))["sandboxId"])
        assert [one.tags for one in workspaces(house) if one.id == own] == [(TAG,)]


async def test_one_that_begins_as_a_snapshot_ends_with_its_sandbox_from_its_first_moment_on(
    open_house: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house() as house:
        source = (await house.call("POST", "/v1/workspaces", json={"name": "mine"})).json()["id"]
        kept = (await house.call("POST", f"/v1/workspaces/{source}/snapshots", json={"name": "one"})).json()["id"]
        at = asyncio.Event()

        def cut(point: str) -> None:
            if point == "workspaces.fork.recorded":
                at.set()
                raise RuntimeError("the server ends here")

        monkeypatch.setattr(crash, "point", cut)
        assert (await house.call("POST", "/v1/sandboxes", json={"snapshotId": kept})).status_code == 500
        assert at.is_set()
        (left,) = [one for one in workspaces(house) if one.id != source]
        assert TAG in left.tags  # so that the next start finds it


async def test_what_the_end_of_a_server_left_a_moment_ago_goes_without_another_restart(
    open_house: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = MemoryVault()
    monkeypatch.setattr(conftest, "MemoryVault", lambda: vault)
    parts: dict[str, Any] = {"records": MemoryRecords(), "host": FakeHost(), "blobs": MemoryBlobs()}
    async with open_house(keep=True, **parts) as house:
        rest = {"name": NAME_PREFIX + "0" * 16, "tags": [TAG]}
        left = (await house.call("POST", "/v1/workspaces", json=rest)).json()["id"]
        stays = workspace_of(house, (await made(house))["sandboxId"])
    monkeypatch.setattr(own_sandboxes, "UNUSED_S", 1.0)
    fresh = parts["records"]._workspaces[left]
    parts["records"]._workspaces[left] = replace(fresh, updated_at=datetime.now(UTC))
    async with open_house(**parts) as house:
        await soon(house, {stays})


async def test_after_a_restart_tokens_hold_and_what_lost_its_sandbox_goes(
    open_house: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = MemoryVault()
    monkeypatch.setattr(conftest, "MemoryVault", lambda: vault)
    parts: dict[str, Any] = {"records": MemoryRecords(), "host": FakeHost(), "blobs": MemoryBlobs()}
    records = parts["records"]
    async with open_house(keep=True, **parts) as house:
        stays, ends = await made(house, name="stays"), await made(house, name="ends")
        for one in (stays, ends):
            child = await house.call("POST", f"/sb/{one['sandboxId']}/sandboxes", one["token"])
            assert child.status_code == 201, child.text
        rest = {"name": NAME_PREFIX + "0" * 16, "tags": [TAG]}
        left = (await house.call("POST", "/v1/workspaces", json=rest)).json()["id"]
    ended = records._sandboxes[ends["sandboxId"]]
    records._sandboxes[ended.id] = replace(ended.to(SandboxState.KILLED), version=ended.version + 1)
    old = records._workspaces[left]
    records._workspaces[left] = replace(old, updated_at=old.updated_at - timedelta(hours=1))
    async with open_house(**parts) as house:
        status = await house.call("GET", f"/sb/{stays['sandboxId']}/auth/status", stays["token"])
        assert status.json()["data"]["token_type"] == "access_token"
        listed = await house.call("GET", f"/sb/{stays['sandboxId']}/sandboxes", stays["token"])
        (_, child) = listed.json()["sandboxes"]
        assert (await house.call("GET", f"/sb/{ends['sandboxId']}/info", ends["token"])).status_code == 401
        await until(lambda: len([one for one in records._sandboxes.values() if one.live]) == 2)
        of_child = workspace_of(house, child["subdomain"].replace("-", "_"))
        await until(lambda: left not in {one.id for one in workspaces(house)})
        found = (await house.call("POST", "/v1/sandboxes/find-or-create", json={"name": "stays"})).json()["data"]
        assert found["sandboxId"] == stays["sandboxId"]
        assert of_child in {one.id for one in await records.list_workspaces()}
        await house.call("DELETE", f"/v1/sandboxes/{stays['sandboxId']}", ALICE)
        await until(lambda: not any(one.live for one in records._sandboxes.values()))
