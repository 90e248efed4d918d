"""LastingSandboxes: sandboxes whose ids go on to mean something when they have ended.

Clients that keep an id and come back to it later, as sessions of the OpenAI Agents SDK do, get another sandbox of the
same shape under the same id. Their own client deletes a sandbox whenever it closes a session, and resumes that session
with commands to the id that it had: an end that was asked for is no different. What makes an id last is a name that is
one of a kind among this service's sandboxes.
"""

from __future__ import annotations

import secrets

from atoll.domain.ids import GROUP_ID
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxSpec
from atoll.domain.workspace import WorkspaceMount
from atoll.services.sandbox_names import SandboxNames
from atoll.services.sandboxes import Sandboxes

NAMESPACE = "openai-agents"


class LastingSandboxes:
    """All of them: NotFound for an id that is unknown, malformed, removed or somebody else's."""

    def __init__(self, sandboxes: Sandboxes, names: SandboxNames) -> None:
        self._sandboxes = sandboxes
        self._names = names

    async def create(
        self, principal: Principal, spec: SandboxSpec, *, name: str | None = None, request_id: str | None = None
    ) -> Sandbox:
        """A new one; errors as from `Sandboxes.create`, Conflict while another of the caller's has that name."""
        name = name or secrets.token_hex(12)
        return await self._sandboxes.create(principal, spec, name=name, namespace=NAMESPACE, request_id=request_id)

    async def newest(self, principal: Principal, sandbox_id: str) -> Sandbox:
        """The sandbox that the id means now: itself, or what took its place. It may have ended. Needs `read`."""
        return await self._newest(principal, await self._sandboxes.get(principal, sandbox_id))

    async def usable(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> str:
        """The id of the sandbox to use, made anew, of the same shape, where it has ended. Needs `execute`.

        One that another surface made stays ended: its id is its own. Errors as from `Sandboxes.create`.
        """
        principal.require(Scope.EXECUTE)
        if Scope.READ not in principal.scopes:
            return sandbox_id  # who may not look is told by what it does next
        found = await self.newest(principal, sandbox_id)
        if found.namespace != NAMESPACE or found.name is None or not found.ended or found.may_wake:
            return found.id
        group = found.owner if GROUP_ID.match(found.owner) else None

        async def make() -> Sandbox:
            return await self._sandboxes.create(
                principal, _same(found.spec), name=found.name, namespace=NAMESPACE, group=group, request_id=request_id
            )

        made, _ = await self._names.claim(principal, NAMESPACE, found.name, make)
        return made.id

    async def _newest(self, principal: Principal, sandbox: Sandbox) -> Sandbox:
        if sandbox.namespace != NAMESPACE or sandbox.name is None or not sandbox.ended:
            return sandbox
        return await self._names.find(principal, NAMESPACE, sandbox.name) or sandbox


def _same(spec: SandboxSpec) -> SandboxSpec:
    """What it was asked to be, without what was worked out from that."""
    return SandboxSpec(
        image=spec.image,
        work_dir=spec.work_dir,
        resources=spec.resources,
        network=spec.network,
        ports=spec.ports,
        workspaces=tuple(WorkspaceMount(one.workspace, one.path, one.read_only) for one in spec.workspaces),
    )
