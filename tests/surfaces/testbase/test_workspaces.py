"""Testbase's own `/workspaces`, as a listener of its own would serve it."""

from __future__ import annotations

from typing import Any

from starlette.routing import Router

from atoll.surfaces.routing import routes
from atoll.surfaces.testbase.errors import TestbaseDialect
from atoll.surfaces.testbase.workspaces import workspace_operations


def serve_testbase_first(house: Any) -> None:
    found = house.app._asgi
    while not isinstance(found, Router):
        found = found._app
    operations = workspace_operations(house.app.workspaces, house.app.settings)
    found.routes[:0] = routes(operations, house.app.door, TestbaseDialect())


async def test_workspaces_are_told_of_and_deleted_in_its_words(house: Any, keys: Any) -> None:
    serve_testbase_first(house)
    assert (await house.call("GET", "/workspaces")).json() == {"count": 0, "workspaces": []}
    form = {"data": {"path": "."}, "files": {"file": ("a", b"x")}}
    await house.call("POST", "/workspace/my-project/upload", **form)
    found = (await house.call("GET", "/workspaces")).json()
    (one,) = found["workspaces"]
    assert (found["count"], one["id"], one["fileCount"], set(one)) == (
        *(1, "my-project", 1),
        {"id", "created", "modified", "fileCount"},
    )
    assert (await house.call("DELETE", "/workspaces/my-project", keys.BOB)).status_code == 404
    gone = await house.call("DELETE", "/workspaces/my-project")
    assert gone.json() == {"success": True, "workspaceId": "my-project"}
    assert (await house.call("GET", "/workspaces")).json()["count"] == 0
