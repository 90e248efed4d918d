"""Previews: ports of sandboxes, reached from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.security.route import Route

PORT = 80
OF = {"sandbox": "previewed", "port": f"/{PORT}"}
CARRIED = Route("execute", OF | {"path": "/a"})


async def preview(house: Any, tenant: Any) -> dict[str, str]:
    """A port of a sandbox of its own, so that what removes sandboxes leaves it."""
    body = {"image": "host", "network": "none", "command": ["sleep", "60"]}
    made = await house.call("POST", "/v1/sessions", tenant.key, json=body)
    sandbox = made.json()["id"]
    registered = await house.call("POST", "/preview/register", tenant.key, json={"sandbox_id": sandbox, "port": PORT})
    assert registered.status_code == 200, registered.text
    return {"previewed": sandbox}


ROUTES: dict[str, Route] = {
    "registerPreview": Route("execute", body={"sandbox_id": "<previewed>", "port": PORT}),
    "listPreviews": Route("read"),
    "createPreviewToken": Route("execute", body={"sandbox_id": "<previewed>", "port": PORT}),
    "removePreview": Route("execute", OF),
    **{f"preview{method}": CARRIED for method in ("Get", "Head", "Post", "Put", "Patch", "Delete", "Websocket")},
}
PARAMETERS: dict[str, str] = {}  # what stands in paths, where a line does not say otherwise
MAKERS: tuple[Callable[[Any, Any], Awaitable[dict[str, str]]], ...] = (preview,)
NOBODYS: dict[str, str] = {"previewed": "sess_000000000000"}
BESIDE: dict[str, str] = {"createPreviewToken": "preview.token_created"}
CALLS: list[tuple[str, set[str]]] = [("removePreview", {"preview.removed"})]
UNCHANGED: set[str] = {"registerPreview"}  # it is registered already
