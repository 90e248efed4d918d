"""The sidekick API of each sandbox: watchers, signals, servers, environment files, overlays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.security.route import Route

SANDBOX = {"id": "sandbox"}
WATCHER = {**SANDBOX, "watcher": "watcher"}
SERVER = {**SANDBOX, "slug": "server"}
OVERLAY = {**SANDBOX, "overlay": "overlay"}

ROUTES: dict[str, Route] = {
    "watchFiles": Route("read", SANDBOX, query="path=/tmp/none"),
    "daemonCreateWatcher": Route("read execute", SANDBOX, body={"path": "/tmp"}),
    "daemonListWatchers": Route("read", SANDBOX),
    "daemonGetWatcher": Route("read", WATCHER),
    "daemonDeleteWatcher": Route("execute", WATCHER),
    "daemonStartSignals": Route("execute", SANDBOX),
    "daemonStopSignals": Route("execute", SANDBOX),
    "daemonSignalsStatus": Route("read", SANDBOX),
    "daemonSignalPort": Route("execute", SANDBOX, body={"port": 3000, "type": "open"}),
    "daemonSignalPortBy": Route("execute", {**SANDBOX, "port": "/3000", "type": "/open"}),
    "daemonSignalServerReady": Route("execute", SANDBOX, body={"port": 3000, "url": "http://a.example/"}),
    "daemonSignalError": Route("execute", SANDBOX, body={"message": "no"}),
    "daemonReadEnv": Route("read", SANDBOX, query="file=/tmp/env"),
    "daemonHasEnv": Route("read", SANDBOX, query="file=/tmp/env"),
    "daemonSetEnv": Route("read write", SANDBOX, query="file=/tmp/env", body={"variables": {"A": "b"}}),
    "daemonUnsetEnv": Route("read write", SANDBOX, query="file=/tmp/env", body={"keys": ["A"]}),
    "daemonListServers": Route("read", SANDBOX),
    "daemonStartServer": Route("execute", SANDBOX, body={"slug": "another", "start": "sleep 60"}),
    "daemonGetServer": Route("read", SERVER),
    "daemonDeleteServer": Route("execute", SERVER),
    "daemonStopServer": Route("execute", SERVER),
    "daemonRestartServer": Route("execute", SERVER),
    "daemonServerLogs": Route("read", SERVER),
    "daemonSetServerStatus": Route("execute", SERVER, body={"status": "ready"}),
    "daemonCreateOverlay": Route("read write", SANDBOX, body={"source": "/etc", "target": "/tmp/copy"}),
    "daemonListOverlays": Route("read", SANDBOX),
    "daemonGetOverlay": Route("read", OVERLAY),
    "daemonDeleteOverlay": Route("write", OVERLAY),
}


async def tools(house: Any, tenant: Any) -> dict[str, str]:
    """One of each, and an environment file."""
    from tests.security.things import post

    path = f"/sb/{tenant.has['sandbox']}"
    slug = f"web-{tenant.name}"
    await post(house, tenant, f"{path}/env?file=/tmp/env", {"variables": {"SECRET": "canary"}})
    await post(house, tenant, f"{path}/servers", {"slug": slug, "start": "sleep 60"})
    watcher = await post(house, tenant, f"{path}/watchers", {"path": "/tmp"})
    overlay = await post(house, tenant, f"{path}/filesystem/overlays", {"source": "/etc", "target": "/tmp/etc"})
    return {"watcher": watcher["data"]["id"], "server": slug, "overlay": overlay["id"]}


PARAMETERS: dict[str, str] = {}  # what stands in paths, where a line does not say otherwise
MAKERS: tuple[Callable[[Any, Any], Awaitable[dict[str, str]]], ...] = (tools,)  # of things: see things.py
NOBODYS: dict[str, str] = {  # of the same form, and nobody's
    "watcher": "w_" + "5" * 16,
    "server": "web-nobody",
    "overlay": "ovl_" + "5" * 16,
}
BESIDE: dict[str, str] = {  # see effects.py
    "daemonSetEnv": "file.written",
    "daemonUnsetEnv": "file.written",
    "daemonSignalPort": "signal.told",
    "daemonSignalPortBy": "signal.told",
    "daemonSignalServerReady": "signal.told",
    "daemonSignalError": "signal.told",
}
CALLS: list[tuple[str, set[str]]] = [
    ("daemonDeleteWatcher", {"watcher.deleted"}),
    ("daemonStopServer", {"server.stopped"}),
    ("daemonDeleteServer", {"server.deleted"}),
    ("daemonDeleteOverlay", {"overlay.deleted"}),
]
UNCHANGED: set[str] = {"daemonStopSignals"}  # where nobody started them
