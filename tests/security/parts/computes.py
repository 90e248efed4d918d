"""ComputeSDK's computes, its gateway, and the tokens of single sandboxes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.security.route import PUBLIC, Route

SANDBOX = {"id": "sandbox"}
TOKEN = {"id": "parent", "token": "session token"}
PARENT = {"id": "parent"}  # one that no other line ends
CHILD = {**PARENT, "subdomain": "child sandbox"}
SNAPSHOT = {"snapshot": "snapshot"}
COMPUTE = {"name": "another", "network": "none"}

ROUTES: dict[str, Route] = {
    # computes
    "createCompute": Route("execute", body=COMPUTE),
    "listComputes": Route("read"),
    "getCompute": Route("read", SANDBOX),
    "stopCompute": Route("execute", {"id": "compute"}),
    "deleteCompute": Route("execute", {"id": "another compute"}),
    "listComputeEvents": Route("read", SANDBOX),
    # the gateway
    "gatewayCreateSandbox": Route("execute write", body={}),
    "gatewayFindOrCreateSandbox": Route("read execute write", body={"name": "another"}),
    "gatewayFindSandbox": Route("read", body={"name": "none"}),
    "gatewayGetSandbox": Route("read", SANDBOX),
    "gatewayDestroySandbox": Route("execute", {"id": "own sandbox"}),
    "gatewayExtendSandbox": Route("execute", SANDBOX, body={"duration": 60_000}),
    "gatewayListTokens": Route("execute", SANDBOX),
    "gatewayRevokeToken": Route("execute", {"id": "parent", "token": "access token"}),
    "gatewayCreateSnapshot": Route("read write", body={"sandboxId": "<own sandbox>"}),
    "gatewayListSnapshots": Route("read"),
    "gatewayDeleteSnapshot": Route("write", SNAPSHOT),
    # the daemon of each sandbox
    "daemonHealth": Route(PUBLIC, SANDBOX),
    "daemonInfo": Route("read", SANDBOX),
    "daemonReady": Route("read", SANDBOX),
    "daemonLanding": Route("read", SANDBOX),
    "daemonPlay": Route("read", SANDBOX),
    "daemonCreateSessionToken": Route("read", SANDBOX, body={}),
    "daemonListSessionTokens": Route("read", SANDBOX),
    "daemonGetSessionToken": Route("read", TOKEN),
    "daemonRevokeSessionToken": Route("read", TOKEN),
    "daemonIssueToken": Route("read", SANDBOX),
    "daemonCreateMagicLink": Route("read", SANDBOX, body={}),
    "daemonFollowMagicLink": Route(PUBLIC, SANDBOX),
    "daemonAuthStatus": Route("read", SANDBOX),
    "daemonAuthInfo": Route("read", SANDBOX),
    "daemonCreateChild": Route("read execute write", PARENT, body={}),
    "daemonListChildren": Route("read", PARENT),
    "daemonGetChild": Route("read", CHILD),
    "daemonDeleteChild": Route("read execute", CHILD),
}


async def tokens_and_children(house: Any, tenant: Any) -> dict[str, str]:
    from tests.security.things import post

    computes = [await post(house, tenant, "/api/computes", COMPUTE) for _ in range(3)]
    daemon = f"/sb/{computes[0]['sandbox_id']}"
    token = await post(house, tenant, f"{daemon}/auth/session_tokens", {})
    child = await post(house, tenant, f"{daemon}/sandboxes", {})
    gateway = f"/v1/sandboxes/{computes[0]['sandbox_id']}"
    assert (await house.call("GET", gateway, tenant.key)).status_code == 200
    access = (await house.call("GET", f"{gateway}/tokens", tenant.key)).json()["data"][0]
    own = await post(house, tenant, "/v1/sandboxes", {})
    return {
        "parent": computes[0]["sandbox_id"],
        "compute": computes[1]["id"],
        "another compute": computes[2]["id"],
        "session token": token["id"],
        "access token": access["id"],
        "child sandbox": child["subdomain"],
        "own sandbox": own["data"]["sandboxId"],
    }


PARAMETERS: dict[str, str] = {}  # what stands in paths, where a line does not say otherwise
# of things: see things.py
MAKERS: tuple[Callable[[Any, Any], Awaitable[dict[str, str]]], ...] = (tokens_and_children,)
NOBODYS: dict[str, str] = {  # of the same form, and nobody's
    "parent": "sess_0123456789ae",
    "compute": "cmp_0123456789ab",
    "another compute": "cmp_0123456789ac",
    "session token": "stk_" + "5" * 24,
    "access token": "stk_" + "6" * 24,
    "child sandbox": "sess-0123456789ac",
    "own sandbox": "sess_0123456789ad",
}
BESIDE: dict[str, str] = {}  # see effects.py
CALLS: list[tuple[str, set[str]]] = [("gatewayDeleteSnapshot", {"snapshot.deleted"})]
UNCHANGED: set[str] = set()
