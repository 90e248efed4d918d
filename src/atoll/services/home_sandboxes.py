"""Home sandboxes: those with their caller's own default workspace, and by ids of the caller's own choosing.

The Terminal Platform's Sandbox API calls it. What `/snapshot/*` keeps is that workspace; all of a caller's share it.
"""

from __future__ import annotations

import re
from dataclasses import replace

from atoll.domain.errors import InvalidInput, NameTaken
from atoll.domain.ids import SANDBOX_ID
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxSpec
from atoll.domain.workspace import DEFAULT_NAME, MOUNT_POINT, WorkspaceMount
from atoll.services.sandbox_names import SandboxNames
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.on_demand import found_or_made
from atoll.services.workspaces.workspaces import Workspaces

NAMESPACE = "sandboxes"
OWN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)


class HomeSandboxes:
    """Makes and finds them."""

    def __init__(self, sandboxes: Sandboxes, workspaces: Workspaces, names: SandboxNames) -> None:
        self._sandboxes = sandboxes
        self._workspaces = workspaces
        self._names = names

    async def create(
        self, principal: Principal, spec: SandboxSpec, *, own_id: str | None = None, request_id: str | None = None
    ) -> Sandbox:
        """One of that shape with the caller's default workspace, which is made when there is none (that needs `write`).

        Needs `execute`. InvalidInput (`sandbox_id`) for what cannot be an id, Conflict while it is another's of the
        caller's own; errors as from `Sandboxes.create`.
        """
        if own_id is not None and (not OWN_ID.fullmatch(own_id) or SANDBOX_ID.match(own_id)):
            raise InvalidInput(
                "sandbox_id must be 1 to 128 letters, digits, or _ . - and of no other sandbox", field="sandbox_id"
            )
        found = await found_or_made(self._workspaces, principal, DEFAULT_NAME, scope=Scope.EXECUTE)
        spec = replace(spec, workspaces=(WorkspaceMount(found.workspace.id, MOUNT_POINT),))
        namespace = None if own_id is None else NAMESPACE
        try:
            return await self._sandboxes.create(
                principal, spec, name=own_id, namespace=namespace, request_id=request_id
            )
        except NameTaken:  # in the caller's words, who chose no namespace
            raise NameTaken(f"another live sandbox of yours has the sandbox_id {own_id!r}") from None

    async def resolve(self, principal: Principal, ref: str) -> str:
        """The id of the sandbox of that id, or of that id of the caller's own. NotFound."""
        return await self._names.resolve(principal, ref, NAMESPACE)
