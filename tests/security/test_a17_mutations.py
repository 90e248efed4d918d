"""A17, O5: every route of the running application that changes something leaves one event, whatever became of it."""

from __future__ import annotations

import asyncio
from typing import Any

from atoll.domain.event import Event
from atoll.surfaces.actions import DONE
from atoll.surfaces.operation import WEBSOCKET, Operation
from tests.security.calling import knock, line
from tests.security.effects import CALLS, UNCHANGED
from tests.security.routes import ADMIN, ADMIN_KEY, PERSON, PUBLIC
from tests.security.test_tenancy import ADMIN_TEXT, Town, open_house, town

__all__ = ["open_house", "town"]

# What the server does next, in the course of what was asked for.
FOLLOWS = {
    "quota.warning": "sandbox.created",
    "sandbox.building": "sandbox.created",
    "sandbox.started": "sandbox.created",
    "sandbox.stopped": "sandbox.stopping",
    "sandbox.suspended": "sandbox.suspending",
    "sandbox.resumed": "sandbox.resuming",
}
# What goes with what was asked for: each such thing has an event of its own.
WITH = {
    "deleteAgentWorkspace": {"sandbox.killed", "workspace.deleted", "snapshot.deleted"},
    "deleteUser": {"user.deleted", "workspace.deleted"},
    "runWorker": {"sandbox.created", "worker.ran", "sandbox.killed"},
    "daemonCreateChild": {"workspace.created", "sandbox.created", "sandbox_token.created"},
    "gatewayCreateSandbox": {"workspace.created", "sandbox.created", "sandbox_token.created"},
    "gatewayFindOrCreateSandbox": {"workspace.created", "sandbox.created", "sandbox_token.created"},
    "gatewayDestroySandbox": {"sandbox.killed", "sandbox.removed"},
    "deleteCompute": {"sandbox.killed", "sandbox.removed"},
    "daemonDeleteChild": {"workspace.changed", "sandbox.killed", "sandbox.removed"},
    "register": {"user.created", "workspace.created", "login.created"},
}
LAST = ("kill", "stop", "suspend", "delete", "remove", "revoke", "unshare", "logout", "leave")


def key_of(town: Town, operation: Operation) -> str | None:
    opens = line(operation).opens
    if opens == ADMIN_KEY:
        return ADMIN_TEXT
    if opens == ADMIN:
        return town.alice.admin
    return None if opens == PUBLIC else town.alice.token if opens == PERSON else town.alice.key


def order(operation: Operation) -> tuple[bool, bool, bool, str]:
    """Those that take away what others need come last, the sandbox before what it has mounted."""
    name = operation.id.lower()
    return (
        line(operation).opens == ADMIN_KEY,
        any(word in name for word in LAST),
        "workspace" in name or "filesystem" in name,
        operation.id,
    )


async def events_of(town: Town, request_id: str) -> list[Event]:
    """Those of a request, without what only follows."""
    found = [one for one in await town.house.records.list_events(limit=100_000) if one.request_id == request_id]
    actions = {one.action for one in found}
    return [one for one in found if FOLLOWS.get(one.action) not in actions]


async def test_a17_each_change_leaves_one_event_and_so_does_each_refusal(town: Town) -> None:
    asked: dict[str, int] = {}
    for operation in sorted((one for one in town.operations() if one.changes), key=order):
        if operation.method == WEBSOCKET:
            more: dict[str, Any] = {"additional_headers": {"x-request-id": f"a17-{operation.id}"}}
        else:
            more = {"headers": {"x-request-id": f"a17-{operation.id}"}}
        status, _ = await knock(town.house, operation, town.alice.has, key_of(town, operation), **more)
        asked[operation.id] = status
    await asyncio.sleep(1.2)  # what goes with no change is written beside the requests
    wrong: dict[str, Any] = {}
    for name, status in asked.items():
        found = await events_of(town, f"a17-{name}")
        expected = 0 if status in (400, 405, 413, 415, 426, 501) else 1
        actions = [one.action for one in found]
        unsaid = DONE in actions and name not in UNCHANGED
        if unsaid or (len(found) != expected and WITH.get(name) != set(actions)):
            wrong[name] = status, [(one.action, one.target, one.outcome) for one in found]
    assert not wrong, wrong
    refused = {name for name, status in asked.items() if status >= 400}
    untried = refused - {name for name, _ in CALLS}
    assert not untried, f"say in effects.py what these leave when they succeed: {untried}"
