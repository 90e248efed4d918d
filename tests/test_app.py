"""The application as a whole: first start, refusals, restarts, and letting go of what a failed start had taken."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import httpx2
import pytest

from atoll.app import Application, create_app
from atoll.domain.errors import AtollError, Conflict, Corrupt, Unavailable
from atoll.domain.workspace import Reason
from atoll.limits import door_limits, service_limits, storage_limits, workspace_limits
from atoll.runtimes.base import Check, Report
from atoll.serve import listening
from atoll.services.limits import Limits
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.settings import Settings
from atoll.surfaces.door import DoorLimits
from atoll.testing.fake_runtime import FakeHost, FakeRuntime


def settings(data: Path, **more: Any) -> Settings:
    return Settings.model_validate({"data": data, "runtime": "fake", "server": {"port": 0, "drain_s": 1}} | more)


async def call(url: str, key: str, method: str = "GET", path: str = "/v1/sessions", **more: Any) -> httpx2.Response:
    async with httpx2.AsyncClient() as http:
        return await http.request(method, url + path, headers={"authorization": f"Bearer {key}"}, **more)


async def test_the_first_start_makes_the_owner_key_and_later_ones_keep_it(tmp_path: Path) -> None:
    texts = []
    for minted in (True, False):
        app = create_app(settings(tmp_path))
        async with app.running(), listening(app) as url:
            assert app.owner_key is not None and app.owner_key.minted is minted
            assert (await call(url, app.owner_key.text)).status_code == 200
            assert (await call(url, "sk_" + "0" * 64)).status_code == 401
            texts.append(app.owner_key.text)
    kept = tmp_path / "owner.key"
    assert texts[0] == texts[1] == kept.read_text().strip()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "atoll.example"])
async def test_a12_where_others_can_reach_it_no_start_without_a_key(tmp_path: Path, host: str) -> None:
    app = create_app(settings(tmp_path, server={"host": host, "port": 0}))
    with pytest.raises(Conflict, match="atoll keys create"):
        async with app.running():
            pass
    assert not (tmp_path / "owner.key").exists()
    assert not await keys_in(tmp_path)


@pytest.mark.parametrize("there", [True, False])
async def test_f14_no_start_with_another_master_key_than_the_workspaces_need(tmp_path: Path, there: bool) -> None:
    app = create_app(settings(tmp_path))
    async with app.running(), listening(app) as url:
        assert app.owner_key is not None
        made = await call(url, app.owner_key.text, "POST", "/v1/workspaces", json={"name": "w"})
        assert made.status_code == 201
    file = tmp_path / "master.key"
    right = file.read_bytes()
    if there:
        file.write_bytes(bytes(len(right)))
    else:
        file.unlink()  # a new one in its place would hide the loss
    with pytest.raises(Corrupt, match="put the right file back"):
        async with create_app(settings(tmp_path)).running():
            pass
    file.write_bytes(right)
    async with create_app(settings(tmp_path)).running():
        pass


async def test_a12_a_key_that_exists_is_enough_there(tmp_path: Path) -> None:
    made = create_app(settings(tmp_path))
    async with made.running():
        text = (await made.keys.create("mine")).text
    (tmp_path / "owner.key").unlink()
    app = create_app(settings(tmp_path, server={"host": "0.0.0.0", "port": 0}))
    async with app.running(), listening(app) as url:
        assert url.startswith("http://127.0.0.1:")  # where this machine reaches it
        assert app.owner_key is None
        assert (await call(url, text)).status_code == 200


async def test_c09_a_second_server_on_the_same_folder_refuses(tmp_path: Path) -> None:
    first = create_app(settings(tmp_path))
    async with first.running():
        with pytest.raises(Conflict, match="in use by another atoll server"):
            async with create_app(settings(tmp_path)).running():
                pass
        await first.records.ping()  # the first is not disturbed
    async with create_app(settings(tmp_path)).running():
        pass


async def test_a_start_that_fails_lets_go_of_all_it_had(tmp_path: Path) -> None:
    class Broken(FakeRuntime):
        async def start(self) -> None:
            raise Unavailable("no user namespaces here")

    with pytest.raises(Unavailable, match="no user namespaces"):
        async with create_app(settings(tmp_path), runtime=Broken(FakeHost())).running():
            pass
    app = create_app(settings(tmp_path))
    async with app.running(), listening(app):
        pass


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    first = create_app(settings(tmp_path / "a"))
    async with first.running(), listening(first) as url:
        port = int(url.rpartition(":")[2])
        second = create_app(settings(tmp_path / "b", server={"port": port}))
        async with second.running():
            with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
                async with listening(second):
                    pass


async def test_c08_a_new_server_finds_the_sandboxes_of_the_last_one(tmp_path: Path) -> None:
    host = FakeHost()
    first = create_app(settings(tmp_path), runtime=FakeRuntime(host))
    async with first.running(), listening(first) as url:
        assert first.owner_key is not None
        key = first.owner_key.text
        body = {"image": "host", "command": ["sh"], "network": "exposed", "ports": [{"container": 80}]}
        session = (await call(url, key, "POST", json=body)).json()
    second = create_app(settings(tmp_path), runtime=FakeRuntime(host))
    async with second.running(), listening(second) as url:
        path = f"/v1/sessions/{session['id']}"
        found = (await call(url, key, path=path)).json()
        assert (found["status"], found["network"]) == ("running", session["network"])  # its ports too
        result = await call(url, key, "POST", path + "/exec", json={"command": ["echo", "still here"]})
        assert result.json()["stdout"] == "still here\n"
        await call(url, key, "DELETE", path)
    await second.runtime.shutdown()


async def test_a_revoked_key_is_refused_on_the_next_request(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    async with app.running(), listening(app) as url:
        made = await app.keys.create("short-lived")
        assert (await call(url, made.text)).status_code == 200
        await app.keys.revoke(made.key.id)
        assert (await call(url, made.text)).status_code == 401


async def test_requests_are_written_to_the_use_log(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    async with app.running(), listening(app) as url:
        made = await app.keys.create("watched")
        await call(url, made.text)
    async with create_app(settings(tmp_path)).running():
        pass
    import sqlite3

    with sqlite3.connect(tmp_path / "atoll.db") as database:
        rows = database.execute("select endpoint, method, status_code, ip_address from api_key_usage").fetchall()
    database.close()
    assert ("/v1/sessions", "GET", 200, "127.0.0.1") in rows


def test_settings_reach_the_services_and_the_door(tmp_path: Path) -> None:
    changed = settings(
        tmp_path,
        limits={"max_sandboxes_per_key": 7, "max_sandboxes": 6, "ws_per_key": 8, "maxima": {"pids": 1000}},
        rates={"key_burst": 9, "enabled": False},
        keys={"use_retention_days": 1},
        server={"trusted_proxies": "10.0.0.0/8, 192.0.2.1"},
    )
    limits, door = service_limits(changed), door_limits(changed)
    assert (limits.sandboxes_per_key, limits.sandboxes_max) == (7, 6)
    assert (limits.pids_max, limits.key_use_kept_s) == (1000, 86_400)
    assert (door.sockets_per_key, door.key_burst, door.enabled) == (8, 9, False)
    assert [str(network) for network in door.trusted_proxies] == ["10.0.0.0/8", "192.0.2.1/32"]


def test_settings_reach_the_workspaces(tmp_path: Path) -> None:
    chosen = {"quota_bytes": 2**30, "max_per_key": 3, "daily": False, "revisions_kept": 9, "snapshots_kept": 2}
    store = {"collect_grace_s": 60, "chunk_cache_bytes": 2**20}
    changed = settings(tmp_path, workspaces=chosen | store)
    limits, storage = workspace_limits(changed), storage_limits(changed)
    assert (limits.quota.bytes, limits.workspaces_per_key) == (2**30, 3)
    assert limits.automatic == {Reason.PROCESS, Reason.STOP, Reason.SUSPEND}
    assert (limits.revisions_kept, limits.snapshots_kept) == (9, 2)
    assert (storage.grace_s, storage.page_cache_bytes) == (60, 2**20)


def test_services_that_are_made_without_settings_have_the_settings_defaults(tmp_path: Path) -> None:
    defaults = settings(tmp_path)
    never = service_limits(defaults).mounts_never  # the server's own folders: known when it has settings only
    assert str(tmp_path) in never
    assert service_limits(defaults) == Limits(mounts_never=never)
    assert workspace_limits(defaults) == WorkspaceLimits()
    assert storage_limits(defaults) == StorageLimits()
    assert door_limits(defaults) == DoorLimits()


async def keys_in(data: Path) -> list[Any]:
    app: Application = create_app(settings(data))
    await app.records.start()
    try:
        return await app.records.list_keys(include_revoked=True)
    except AtollError:
        return []
    finally:
        await app.records.close()


class Leaky(FakeRuntime):
    """A runtime whose probe finds a rule that does not hold."""

    async def prove(self) -> Report:
        return Report(
            "root", (Check("capabilities", True, "none"), Check("proc_sys", False, "core_pattern is writable"))
        )


async def test_a_server_that_cannot_prove_its_isolation_is_not_healthy(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path), runtime=Leaky(FakeHost()))
    async with app.running(), listening(app) as url:
        assert app.owner_key is not None
        answer = await call(url, app.owner_key.text, path="/health")
        assert answer.status_code == 503
        assert answer.json()["checks"]["isolation"]["status"] == "unhealthy"
        assert answer.json()["checks"]["runtime"]["status"] == "healthy"


async def test_a_second_store_gets_everything(tmp_path: Path) -> None:
    there = tmp_path / "there" / "objects"
    second = {"copy_url": (tmp_path / "there").as_uri(), "copy_every_s": 0.1, "copy_backup_every_s": 86_400}
    app = create_app(settings(tmp_path / "data", blobs=second))
    async with app.running(), listening(app) as url:
        assert app.owner_key is not None and app.second_store is not None
        await call(url, app.owner_key.text, "POST", "/v1/workspaces", json={"name": "w"})
        packs = {pack.id for pack in await app.records.list_packs()}
        async with asyncio.timeout(20):
            while {path.name for path in there.rglob("pack_*")} != packs or not app.second_store.lag.backup:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            told = "0 objects (0 bytes), 0 s behind; 0 lost; last whole pass "
            check = {"detail": ""}
            while not check["detail"].startswith(told):  # once a second, and at the end of a pass
                check = (await call(url, app.owner_key.text, path="/health")).json()["checks"]["second_store"]
    assert check["status"] == "healthy"
    assert packs and list(there.rglob("manifest.json"))


async def test_a_second_store_that_cannot_be_opened_is_told_and_keeps_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    app = create_app(settings(tmp_path / "data", blobs={"copy_url": (tmp_path / "file" / "below").as_uri()}))
    async with app.running(), listening(app) as url:
        assert app.owner_key is not None and app.second_store is not None
        made = await call(url, app.owner_key.text, "POST", "/v1/workspaces", json={"name": "w"})
        assert made.status_code == 201
        async with asyncio.timeout(20):
            while app.second_store.lag.error is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        answer = await call(url, app.owner_key.text, path="/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    assert answer.json()["checks"]["second_store"]["status"] == "unhealthy"
