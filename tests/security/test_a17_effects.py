"""A17, O5: what succeeds leaves the event that its service wrote with the change, and not one that the door made up.

The door writes events beside the requests, for what is no change of a record; which those are stands here by name.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.ledger import Use, UseKind
from atoll.domain.price import Cost
from atoll.surfaces.actions import ACTIONS, DONE
from tests.security.calling import knock
from tests.security.effects import BESIDE, CALLS
from tests.security.test_a17_mutations import events_of, key_of
from tests.security.test_tenancy import Town, open_house, town
from tests.security.things import post
from tests.surfaces.workspaces.client import ENTRIES, file, frame, lines
from tests.surfaces.workspaces.test_archives import archive

__all__ = ["open_house", "town"]

PASSWORD = "correct horse battery staple"
SESSION = {"image": "host", "network": "none", "command": ["sleep", "60"]}
# Where such a thing is made, as what, and what is called on it.
ANEW: dict[str, tuple[str, dict[str, Any], str]] = {
    "setSessionNetwork": ("/v1/sessions", SESSION | {"network": {"allow": ["a.example"]}}, "/network"),
    "suspendSession": ("/v1/sessions", SESSION | {"workspace": "default"}, "/suspend"),
    "stopSession": ("/v1/sessions", SESSION, "/stop"),
    "deleteFilesystem": ("/api/filesystems", {"name": "fs-to-delete"}, ""),
    "deleteWorkspace": ("/v1/workspaces", {"name": "to-delete"}, ""),
}


def test_the_door_tells_of_what_is_no_record_and_of_nothing_else() -> None:
    assert ACTIONS == BESIDE


async def test_a17_what_succeeds_leaves_its_own_event(town: Town) -> None:
    operations = {one.id: one for one in town.operations()}
    wrong: dict[str, Any] = {}
    for name, expected in CALLS:
        operation, ids, more = operations[name], town.alice.has | {"principal": town.bob.id}, await how(town, name)
        headers = {"x-request-id": f"effect-{name}"} | more.pop("headers", {})
        if more:
            key = more.pop("key", key_of(town, operation))
            path = more.pop("path", operation.path).format_map(_Named(town))
            answer = await town.house.call(operation.method, path, key, headers=headers, **more)
            status, body = answer.status_code, answer.content
        else:
            status, body = await knock(town.house, operation, ids, key_of(town, operation), headers=headers)
        if name == "login":
            town.alice.has["refresh"] = json.loads(body)["refresh_token"]
        found = await _told(town, name, wait=name in BESIDE)
        if status >= 300 or {one.action for one in found} != expected or len(found) != len(expected):
            wrong[name] = status, body[:200], [(one.action, one.target) for one in found]
    assert not wrong, wrong


class _Named(dict[str, str]):
    """What stands in the paths of calls that are written out here."""

    def __init__(self, town: Town) -> None:
        has = town.alice.has
        super().__init__(
            ws=has["workspace"], workspace=has["uuid"], principal=town.bob.id, agent=town.bob.id, id=has["sandbox"]
        )
        self |= {"key": has.get("made", ""), "snap": has["snapshot"], "member": town.bob.id, "group": has["group"]}


async def how(town: Town, name: str) -> dict[str, Any]:
    """What to call with, where the line in routes.py is meant to be refused."""
    has, house = town.alice.has, town.house
    if name in ("syncCommit", "undoRevision"):
        head = (await house.call("GET", f"/v1/workspaces/{has['workspace']}/sync/head", town.alice.key)).json()
        path = f"/v1/workspaces/{has['workspace']}/sync/commit?base={head['revision']['id']}"
        if name == "syncCommit":
            return {"path": path, "content": lines([file("a", b"hello")]), "headers": ENTRIES}
        return {"json": {}}
    if name == "uploadFile":
        return {"data": {"path": "."}, "files": {"file": ("a", b"uploaded")}}
    if name in ANEW:
        return await anew(town, name)
    if name == "gatewayDeleteSnapshot":
        kept = await post(house, town.alice, "/v1/snapshots", {"sandboxId": has["own sandbox"]})
        return {"path": f"/v1/snapshots/{kept['data']['id']}"}
    if name == "deleteAgentWorkspace":
        made = await post(house, town.alice, "/workspaces", {"name": "to be deleted"})
        return {"path": f"/workspaces/{made['workspace_id']}"}
    if name in ("installWorker", "rateWorker"):  # somebody else's: one's own neither counts
        offer = {"name": name, "description": "d", "command": ["true"]}
        made = await post(house, town.bob, "/marketplace/publish", offer)
        if name == "installWorker":
            return {"path": f"/marketplace/{made['worker_id']}/install"}
        await post(house, town.alice, f"/marketplace/{made['worker_id']}/install", None)
        return {"path": f"/marketplace/{made['worker_id']}/rate", "json": {"rating": 5}}
    if name == "adminChangeKey":
        has["made"] = (await town.keys.create("to be deleted")).key.id
    if name == "adminRefund":  # of what was charged
        now = datetime.now(UTC)
        await house.records.add_use(Use(new_id("use"), town.bob.id, UseKind.MODEL, now, Cost(2_000_000)), now)
    calls: dict[str, dict[str, Any]] = {
        "setGroupRole": {"json": {"role": "viewer"}},
        "changeGroupRole": {"json": {"role": "admin"}},
        "shareWorkspace": {"json": {"permission": "read"}},
        "unshareWorkspace": {"params": {}},
        "shareAgentWorkspace": {"json": {"target_agent_ids": [town.bob.id]}},
        "revokeAgentShare": {"params": {}},
        "syncChunks": {"content": frame(b"hello")},
        "importWorkspace": {"content": archive(("b", b"imported"))},
        "deleteWorkspaceSnapshot": {"params": {}},
        "changePassword": {"json": {"old_password": PASSWORD, "new_password": PASSWORD + " 2"}},
        "login": {"json": {"username": "alice", "password": PASSWORD + " 2"}},
        "refresh": {"json": {"refresh_token": has.get("refresh", "")}},
        "adminChangeKey": {"json": {"name": "changed"}},
        "adminRevokeKey": {"params": {}},
        "adminDeleteKey": {"params": {}},
    }
    if name == "logout":
        found = await house.call("POST", "/auth/login", None, json=calls["login"]["json"])
        return {"json": {"refresh_token": found.json()["refresh_token"]}}
    if name == "revokeApiKey":
        found = await house.call("POST", "/auth/login", None, json=calls["login"]["json"])
        town.alice.token = found.json()["access_token"]
    return calls.get(name, {})


async def anew(town: Town, name: str) -> dict[str, Any]:
    """Called on a thing of its own: what the tenant has is gone by then, or is of another kind."""
    collection, body, rest = ANEW[name]
    made = await post(town.house, town.alice, collection, body)
    return {"path": f"{collection}/{made['id']}{rest}"} | (
        {"json": {"allow": ["b.example"]}} if "network" in rest else {}
    )


async def _told(town: Town, name: str, *, wait: bool) -> list[Event]:
    if wait:  # what the door tells of is written beside the requests
        await town.house.app.audit.requests.flush()
    return [one for one in await events_of(town, f"effect-{name}") if one.action != DONE]
