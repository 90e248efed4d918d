"""Restarting: a sandbox that has ended is begun anew for its preview, from the latest snapshot of its workspace.

The fallbacks ask it. The new one has a workspace of its own, a fork, so that nothing is written into the old one's.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from atoll.domain.errors import AtollError, Conflict, Forbidden, NotFound
from atoll.domain.key import KeyKind
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxSpec
from atoll.domain.workspace import WorkspaceMount
from atoll.records.base import Records
from atoll.services.clock import utc_now
from atoll.services.identity.connected import Connected
from atoll.services.identity.principals import Principals
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.workspaces import Workspaces

_log = structlog.get_logger()

NAME_CHARS = 80
ON_PURPOSE = ("stopped", "killed")  # why one ended whose owner wanted it to


@dataclass(frozen=True, slots=True)
class Begun:
    """A sandbox that was begun anew, and by whom."""

    id: str
    by: Principal


class Restarting:
    """For the old one's owner, by whoever may make such a sandbox now: the one who asks, or what made the old one."""

    def __init__(self, records: Records, connected: Connected, sandboxes: Sandboxes, workspaces: Workspaces) -> None:
        self._records = records
        self._connected = connected
        self._sandboxes = sandboxes
        self._workspaces = workspaces

    async def begin(self, sandbox_id: str, asker: Principal | None) -> Begun | None:
        """The new sandbox, whose program may yet begin to listen. None where that is not to be: the old one has not
        ended, has no main program or no workspace that it writes to, or had what nobody may give again unasked:
        secrets, variables that are sealed, a capability, a task; or it was ended on purpose, and only a visitor asks
        now (`asker` None). Errors as from making one; nothing is left then."""
        old = await self._records.get_sandbox(sandbox_id)
        if old is None or not old.ended or not _may_begin(old.spec):
            return None
        if asker is None and old.reason in ON_PURPOSE:
            return None
        if await Principals(self._records, utc_now).has_ended(old.owner):
            raise Forbidden("the key of the sandbox's owner was revoked or has expired, or its user is disabled")
        by, forks = asker or await self._maker(old), list[str]()
        try:
            mounts = [await self._mounted(by, old.owner, mount, forks) for mount in old.spec.workspaces]
            spec = replace(
                old.spec,
                workspaces=tuple(mounts),
                layers=(),
                ports=tuple(replace(port, host_port=None) for port in old.spec.ports),
                maker="",
            )
            made = await self._sandboxes.create(by, spec, name=old.name, group=old.owner)
        except BaseException:
            await self._drop(by, forks)
            raise
        self._sandboxes.reaching.expect(made.id)
        return Begun(made.id, by)

    async def undo(self, begun: Begun) -> None:
        """End one that `begin` has made, and its forks with it: nobody wants it."""
        made = await self._records.get_sandbox(begun.id)
        if made is None:
            return
        with suppress(Conflict, NotFound):  # it has ended by itself
            await self._sandboxes.kill(begun.by, begun.id)
        await self._drop(begun.by, [mount.workspace for mount in made.spec.workspaces if not mount.read_only])

    async def _drop(self, by: Principal, forks: list[str]) -> None:
        for fork in forks:
            try:
                await self._workspaces.delete(by, fork)
            except AtollError as error:
                _log.warning("preview.fork_left", workspace=fork, error=error.message)

    async def _maker(self, old: Sandbox) -> Principal:
        """What made the sandbox, with what it may do now: it does not get more because a visitor asks.
        Unauthenticated where it may do nothing any more."""
        credential = old.spec.maker or old.credential or old.owner
        source = await self._connected.source(credential, old.owner)
        key = await self._records.get_key(old.owner)
        return Principal(
            old.owner,
            KeyKind.STANDARD if key is None else key.kind,
            source.scopes,
            credential=credential,
            resources=source.resources,
            lineage=source.lineage,
        )

    async def _mounted(self, by: Principal, owner: str, mount: WorkspaceMount, forks: list[str]) -> WorkspaceMount:
        """What is mounted instead; a fork that was made for it is added to `forks`."""
        if mount.read_only:
            return replace(mount, tree_id="")
        kept = await self._workspaces.snapshots.list(by, mount.workspace)
        source = await self._workspaces.get(by, mount.workspace)
        name = f"{source.workspace.name[:NAME_CHARS]}-preview-{secrets.token_hex(3)}"
        fork = await self._workspaces.forks.fork(by, mount.workspace, name, kept[0].id if kept else None, owner)
        forks.append(fork.workspace.id)
        return replace(mount, workspace=fork.workspace.id, tree_id="")


def _may_begin(spec: SandboxSpec) -> bool:
    writable = any(not mount.read_only for mount in spec.workspaces)
    unasked = spec.sealed_env or spec.secrets or spec.capability is not None or spec.task is not None
    return bool(spec.command) and writable and not unasked
