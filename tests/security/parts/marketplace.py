"""The marketplace of workers. Those that tenants have here are private: what is public everybody sees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.security.route import Route

WORKER = {"worker_id": "worker"}
OFFER = {"name": "another", "description": "d", "command": ["true"], "visibility": "private"}


async def worker(house: Any, tenant: Any) -> dict[str, str]:
    body = OFFER | {"name": "own", "pricing": {"per_run": 0.5}}
    made = await house.call("POST", "/marketplace/publish", tenant.key, json=body)
    assert made.status_code == 200, made.text
    return {"worker": made.json()["worker_id"]}


ROUTES: dict[str, Route] = {
    "publishWorker": Route("write", body=OFFER),
    "searchWorkers": Route("read"),
    "getWorker": Route("read"),
    "listWorkerVersions": Route("read"),
    "unpublishWorker": Route("write"),
    "installWorker": Route("write"),
    "rateWorker": Route("write", body={"rating": 5}),
    "runWorker": Route("read execute", body={"env": {"A": "b"}}),
}
PARAMETERS: dict[str, str] = WORKER
MAKERS: tuple[Callable[[Any, Any], Awaitable[dict[str, str]]], ...] = (worker,)
NOBODYS: dict[str, str] = {"worker": "wkr_" + "5" * 24}
BESIDE: dict[str, str] = {}
CALLS: list[tuple[str, set[str]]] = [
    ("publishWorker", {"worker.published"}),
    ("installWorker", {"worker.installed"}),
    ("rateWorker", {"worker.rated"}),
    ("unpublishWorker", {"worker.unpublished"}),
]
UNCHANGED: set[str] = {"installWorker"}  # an author's own
