"""ComputeSDK's gateway: makes and finds sandboxes, and gives their sidekick API's address with a token for it."""

from __future__ import annotations

import json
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput, NotFound
from atoll.domain.ids import sandbox_id_of
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.domain.sandbox_token import SandboxToken, TokenKind
from atoll.domain.workspace import Snapshot
from atoll.services.daemon.children import is_childrens
from atoll.services.daemon.own_sandboxes import OwnSandboxes
from atoll.services.sandbox_names import SandboxNames
from atoll.services.sandbox_tokens import SandboxTokens
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.addresses import Addresses, sandbox_in
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk import gateway_bodies as bodies
from atoll.surfaces.computesdk.gateway_errors import GatewayError
from atoll.surfaces.door import ADMITTED
from atoll.surfaces.operation import Answer, Once, Operation
from atoll.telemetry.trace import trace_of

SANDBOXES = "/v1/sandboxes"
SANDBOX = SANDBOXES + "/{id}"
SNAPSHOTS = "/v1/snapshots"
Json = dict[str, Any]


class Furnish(Protocol):
    """Puts the overlays and servers that are asked for into a sandbox that was made just now; tells of both as this API
    does, and of nothing where none are."""

    async def __call__(
        self, principal: Principal, sandbox: Sandbox, asked: bodies.SandboxOptions, base: str
    ) -> Json: ...


class GatewayHandlers:
    """One method for each operation."""

    def __init__(
        self,
        own: OwnSandboxes,
        sandboxes: Sandboxes,
        names: SandboxNames,
        tokens: SandboxTokens,
        furnish: Furnish,
        settings: Settings,
    ) -> None:
        self._own = own
        self._sandboxes = sandboxes
        self._names = names
        self._tokens = tokens
        self._furnish = furnish
        self._addresses = Addresses(settings)
        self._body_bytes = settings.server.body_bytes
        self._defaults = settings.limits.defaults.resources()
        self._session_timeout_s = settings.limits.session_timeout_s

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.CreateSandboxBody, self._body_bytes, optional=True)
        return _ok(await self._created(request, principal, body), 201)

    async def find_or_create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.FindOrCreateBody, self._body_bytes)
        namespace = _free(body.namespace or bodies.NAMESPACE)
        made: list[Json] = []

        async def make() -> Sandbox:
            sandbox, told = await self._make(request, principal, body)
            made.append(told)
            return sandbox

        found, _ = await self._names.claim(principal, namespace, body.name, make)
        return _ok(made[0] if made else await self._told(request, principal, found))

    async def find(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.FindBody, self._body_bytes)
        found = await self._names.find(principal, _free(body.namespace), body.name)
        return _ok(None if found is None else await self._told(request, principal, found))

    async def get(self, request: Request, principal: Principal) -> Response:
        sandbox = await self._sandboxes.get(principal, sandbox_in(request))
        if sandbox.ended and not sandbox.may_wake:
            raise NotFound("session not found")
        return _ok(await self._told(request, principal, sandbox))

    async def destroy(self, request: Request, principal: Principal) -> Response:
        await self._sandboxes.end(principal, sandbox_in(request), request_id=trace_of(request.scope).request_id)
        return json_response({"success": True})

    async def extend(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.ExtendBody, self._body_bytes, optional=True)
        await self._sandboxes.keepalive(
            principal,
            sandbox_in(request),
            timeout_s=body.duration / 1000,
            request_id=trace_of(request.scope).request_id,
        )
        return json_response({"success": True})

    async def tokens(self, request: Request, principal: Principal) -> Response:
        found = await self._tokens.list(principal, sandbox_in(request), TokenKind.ACCESS)
        return _ok([_token(one) for one in found])

    async def revoke_token(self, request: Request, principal: Principal) -> Response:
        await self._tokens.revoke(principal, sandbox_in(request), request.path_params["token"], TokenKind.ACCESS)
        return json_response({"success": True})

    async def snapshot(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.SnapshotBody, self._body_bytes)
        sandbox_id = sandbox_id_of(body.sandboxId) or body.sandboxId
        made = await self._own.snapshot(principal, sandbox_id, body.name, body.metadata)
        return _ok(_snapshot(made), 201)

    async def snapshots(self, _request: Request, principal: Principal) -> Response:
        return _ok([_snapshot(one) for one in await self._own.snapshots(principal)])

    async def delete_snapshot(self, request: Request, principal: Principal) -> Response:
        await self._own.delete_snapshot(principal, request.path_params["snapshot"])
        return json_response({"success": True})

    async def _created(
        self, request: Request, principal: Principal, body: bodies.CreateSandboxBody | bodies.FindOrCreateBody
    ) -> Json:
        _free(body.namespace or bodies.NAMESPACE)
        return (await self._make(request, principal, body))[1]

    async def _make(
        self, request: Request, principal: Principal, body: bodies.CreateSandboxBody | bodies.FindOrCreateBody
    ) -> tuple[Sandbox, Json]:
        asked = body.asked(self._defaults, self._session_timeout_s, body.name)
        request_id = trace_of(request.scope).request_id
        made = await self._own.create(principal, asked, request_id=request_id)
        try:
            told = await self._told(request, principal, made)
            told |= await self._furnish(principal, made, body, self._addresses.base(request))
        except BaseException:
            await self._own.abandon(principal, made.id, request_id=request_id)
            raise
        return made, told

    async def _told(self, request: Request, principal: Principal, sandbox: Sandbox) -> Json:
        text, _ = request.scope[ADMITTED]
        token = await self._tokens.access(principal, sandbox.id, text)
        return {
            "sandboxId": sandbox.id,
            "url": self._addresses.daemon(request, sandbox.id),
            "token": token.text,
            "provider": bodies.PROVIDER,
            "status": sandbox.state.value,
            "metadata": dict(sandbox.metadata),
            "name": sandbox.name,
            "namespace": sandbox.namespace,
        }


def _free(namespace: str) -> str:
    """InvalidInput for one that names of children stand in."""
    if is_childrens(namespace):
        raise InvalidInput("namespace: that is for child sandboxes", field="namespace")
    return namespace


def _token(one: SandboxToken) -> Json:
    return {"id": one.id, "maker": one.maker, "createdAt": one.created_at, "expiresAt": one.expires_at}


def _snapshot(one: Snapshot) -> Json:
    return {
        "id": one.id,
        "provider": bodies.PROVIDER,
        "createdAt": one.created_at,
        "name": one.name,
        "metadata": json.loads(one.metadata) if one.metadata else {},
    }


def _ok(data: Any, status: int = 200) -> Response:
    """Tokens stand in most of them: nobody is to keep an answer."""
    answer = json_response({"success": True, "data": data}, status)
    answer.headers["cache-control"] = "no-store"
    return answer


def operations(of: GatewayHandlers) -> list[Operation]:
    """What the gateway serves."""
    error, tag = GatewayError, "computesdk gateway"
    made = (400, 402, 403, 404, 409, 413, 429, 501, 503, 504)
    sandbox, snapshot = bodies.GatewaySandboxAnswer, bodies.GatewaySnapshotAnswer
    done = (Answer(200, "done", bodies.GatewayDoneAnswer),)
    return [
        Operation(
            "POST", SANDBOXES, of.create, "gatewayCreateSandbox", "Make a sandbox with a workspace of its own",
            answers=(Answer(201, "the sandbox, running", sandbox),), body=bodies.CreateSandboxBody,
            body_required=False, errors=made, tag=tag, error=error, once=Once.MADE,
        ),
        Operation(
            "POST", SANDBOXES + "/find-or-create", of.find_or_create, "gatewayFindOrCreateSandbox",
            "The sandbox of that name, made where there is none",
            answers=(Answer(200, "the sandbox, running", sandbox),), body=bodies.FindOrCreateBody,
            errors=made, tag=tag, error=error,
        ),
        Operation(
            "POST", SANDBOXES + "/find", of.find, "gatewayFindSandbox", "The sandbox of that name",
            answers=(Answer(200, "the sandbox, or null", bodies.GatewayFoundAnswer),), body=bodies.FindBody,
            errors=(400, 403, 404, 413, 429, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", SANDBOX, of.get, "gatewayGetSandbox", "Look at a sandbox",
            answers=(Answer(200, "the sandbox", sandbox),), errors=(403, 404, 429, 503), tag=tag, error=error,
        ),
        Operation(
            "DELETE", SANDBOX, of.destroy, "gatewayDestroySandbox", "End a sandbox and forget it",
            answers=done, errors=(403, 404, 409, 503, 504), tag=tag, error=error,
        ),
        Operation(
            "POST", SANDBOX + "/extend", of.extend, "gatewayExtendSandbox", "Let a sandbox live for longer",
            answers=done, body=bodies.ExtendBody, body_required=False,
            errors=(400, 403, 404, 409, 413, 503, 504), tag=tag, error=error,
        ),
        Operation(
            "GET", SANDBOX + "/tokens", of.tokens, "gatewayListTokens", "The access tokens of a sandbox, oldest first",
            answers=(Answer(200, "those that are good", bodies.GatewayTokensAnswer),),
            errors=(403, 404, 503), tag=tag, error=error,
        ),
        Operation(
            "DELETE", SANDBOX + "/tokens/{token}", of.revoke_token, "gatewayRevokeToken",
            "End an access token, and what was made with it", answers=done,
            errors=(403, 404, 503), tag=tag, error=error,
        ),
        Operation(
            "POST", SNAPSHOTS, of.snapshot, "gatewayCreateSnapshot", "Keep a sandbox's workspace as it is now",
            answers=(Answer(201, "the snapshot", snapshot),), body=bodies.SnapshotBody,
            errors=(400, 402, 403, 404, 409, 413, 429, 503, 504), tag=tag, error=error,
        ),
        Operation(
            "GET", SNAPSHOTS, of.snapshots, "gatewayListSnapshots", "Your snapshots, newest first",
            answers=(Answer(200, "the snapshots", bodies.GatewaySnapshotsAnswer),),
            errors=(403, 503), tag=tag, error=error,
        ),
        Operation(
            "DELETE", SNAPSHOTS + "/{snapshot}", of.delete_snapshot, "gatewayDeleteSnapshot", "Delete a snapshot",
            answers=done, errors=(403, 404, 409, 503, 504), tag=tag, error=error,
        ),
    ]  # fmt: skip
