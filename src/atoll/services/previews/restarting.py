"""Restarting: a sandbox that has ended is begun anew for its preview, from the latest snapshot of its workspace.

The fallbacks ask it. The new one has a workspace of its own, a fork, so that nothing is written into the old one's.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace

import structlog

from atoll.domain.errors import AtollError, Conflict, Forbidden, NotFound
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxSpec
from atoll.domain.workspace import WorkspaceMount
from atoll.records.base import Records
from atoll.services.clock import utc_now
from atoll.services.identity.principals import Principals
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.workspaces import Workspaces

_log = structlog.get_logger()

NAME_CHARS = 80
ON_PURPOSE = ("stopped", "killed")  # why one ended whose owner wanted it to


class Restarting:
    """In the owner's name, and within the owner's quotas and credit."""

    def __init__(self, records: Records, sandboxes: Sandboxes, workspaces: Workspaces) -> None:
        self._records = records
        self._sandboxes = sandboxes
        self._workspaces = workspaces

    async def begin(self, sandbox_id: str, *, by_owner: bool) -> str | None:
        """The new sandbox, whose program may yet begin to listen. None where that is not to be: the old one has not
        ended, has no main program or no workspace that it writes to, or had what nobody may give again unasked:
        secrets, variables that are sealed, a capability, a task; or it was ended on purpose, and it is not its owner
        who asks now (`by_owner`). Errors as from making one; nothing is left then."""
        old = await self._records.get_sandbox(sandbox_id)
        if old is None or not old.ended or not _may_begin(old.spec):
            return None
        if not by_owner and old.reason in ON_PURPOSE:
            return None
        owner, forks = await self._owner(old), list[str]()
        try:
            mounts = [await self._mounted(owner, mount, forks) for mount in old.spec.workspaces]
            spec = replace(
                old.spec,
                workspaces=tuple(mounts),
                layers=(),
                ports=tuple(replace(port, host_port=None) for port in old.spec.ports),
                maker="",
            )
            made = await self._sandboxes.create(owner, spec, name=old.name)
        except BaseException:
            await self._drop(owner, forks)
            raise
        self._sandboxes.reaching.expect(made.id)
        return made.id

    async def undo(self, sandbox_id: str) -> None:
        """End one that `begin` has made, and its forks with it: nobody wants it."""
        made = await self._records.get_sandbox(sandbox_id)
        if made is None:
            return
        owner = await self._owner(made)
        with suppress(Conflict, NotFound):  # it has ended by itself
            await self._sandboxes.kill(owner, sandbox_id)
        await self._drop(owner, [mount.workspace for mount in made.spec.workspaces if not mount.read_only])

    async def _drop(self, owner: Principal, forks: list[str]) -> None:
        for fork in forks:
            try:
                await self._workspaces.delete(owner, fork)
            except AtollError as error:
                _log.warning("preview.fork_left", workspace=fork, error=error.message)

    async def _owner(self, sandbox: Sandbox) -> Principal:
        if await Principals(self._records, utc_now).has_ended(sandbox.owner):
            raise Forbidden("the key of the sandbox's owner was revoked or has expired, or its user is disabled")
        key = await self._records.get_key(sandbox.owner)
        kind = KeyKind.STANDARD if key is None else key.kind
        return Principal(sandbox.owner, kind, frozenset(Scope), credential=sandbox.credential or sandbox.owner)

    async def _mounted(self, owner: Principal, mount: WorkspaceMount, forks: list[str]) -> WorkspaceMount:
        """What is mounted instead; a fork that was made for it is added to `forks`."""
        if mount.read_only:
            return replace(mount, tree_id="")
        kept = await self._workspaces.snapshots.list(owner, mount.workspace)
        source = await self._workspaces.get(owner, mount.workspace)
        name = f"{source.workspace.name[:NAME_CHARS]}-preview-{secrets.token_hex(3)}"
        fork = await self._workspaces.forks.fork(owner, mount.workspace, name, kept[0].id if kept else None)
        forks.append(fork.workspace.id)
        return replace(mount, workspace=fork.workspace.id, tree_id="")


def _may_begin(spec: SandboxSpec) -> bool:
    writable = any(not mount.read_only for mount in spec.workspaces)
    unasked = spec.sealed_env or spec.secrets or spec.capability is not None or spec.task is not None
    return bool(spec.command) and writable and not unasked
