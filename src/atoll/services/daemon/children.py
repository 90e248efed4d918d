"""Children: sandboxes that belong to another one, made by whoever holds its access token; the sidekick API serves them.

Each is a sandbox of its own, of the same owner and within its quota, and ends with its parent.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound, QuotaExceeded
from atoll.domain.ids import sandbox_id_of, subdomain
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxSpec, SandboxState
from atoll.records.base import Records
from atoll.services.background import Background
from atoll.services.daemon.hub import Hubs
from atoll.services.daemon.own_sandboxes import MADE_BY, Asked, OwnSandboxes
from atoll.services.locks import Locks
from atoll.services.sandbox_tokens import SandboxTokens
from atoll.services.sandboxes import Sandboxes

NAMESPACE = "child-of "  # and the parent's id
KEPT = "child-of-"  # and the parent's id: a tag of workspaces that ended children left
CHILDREN_MAX = 100  # of one parent, with the workspaces that ended ones left
LISTED_MAX = 100_000
CREATED, DELETED = "sandbox.created", "sandbox.deleted"
CLOSE_S = 5.0


class Children:
    """app.py: construct, `await start()` after the sandboxes, `await close()` before them."""

    def __init__(
        self, records: Records, sandboxes: Sandboxes, own: OwnSandboxes, tokens: SandboxTokens, hubs: Hubs
    ) -> None:
        self._records = records
        self._sandboxes = sandboxes
        self._own = own
        self._tokens = tokens
        self._hubs = hubs
        self._background = Background()
        self._parents: set[str] = set()  # that have, or had, children
        self._making: list[tuple[str, str | None]] = []  # children that are under way: their parents and names
        self._counting = Locks()
        sandboxes.hear_of_ends(self._ended)

    async def start(self) -> None:
        """End those whose parent ended while no server was there."""
        await self._sweep()

    async def close(self) -> None:
        """What is under way gets a moment. A second call does nothing."""
        await self._background.close(CLOSE_S)

    async def create(
        self,
        principal: Principal,
        parent_id: str,
        asked: Asked,
        url_of: Callable[[str], str],
        *,
        request_id: str | None = None,
    ) -> Sandbox:
        """One more of the parent's shape, where nothing else is asked for. Needs an access token, or a credential that
        may make sandboxes, with `execute` and `write`. `url_of` says where clients reach one.

        Conflict for a parent that does not run, or is itself a child; QuotaExceeded beyond CHILDREN_MAX; errors as from
        `OwnSandboxes.create`, but to a token of the parent, snapshots of other workspaces than the parent's and its
        children's are unknown.
        """
        parent = await self._sandboxes.get(principal, parent_id)
        for scope in sorted(MADE_BY):
            principal.require(scope, parent.owner)
        maker = await self._tokens.maker(principal)
        if not parent.live and not parent.may_wake:
            raise Conflict(f"session not running: status={parent.state}")
        if is_childrens(parent.namespace):
            raise Conflict("a child sandbox has no children of its own")
        if asked.snapshot is not None and maker is not principal:
            await self._check_own(maker, parent, asked.snapshot)
        shaped = replace(
            asked,
            spec=_like(parent.spec, asked.spec),
            name=asked.name or f"child-{secrets.token_hex(6)}",
            namespace=NAMESPACE + parent.id,
            group=None if parent.owner == maker.id else parent.owner,
        )
        self._parents.add(parent.id)
        async with self._place(parent, shaped.name):
            made = await self._own.create(maker, shaped, request_id=request_id)
        if await self._has_ended(parent.id):  # while it was made: whoever ended its children did not see it
            await self.abandon(made, request_id=request_id)
            raise Conflict("session ended while its child was made")
        told = {"subdomain": subdomain(made.id), "url": url_of(made.id)}
        self._hubs.of(parent.id).publish(CREATED, "", told, everybody=True)
        return made

    async def list(self, principal: Principal, parent_id: str) -> list[Sandbox]:
        """The sandbox itself, and its children, oldest first. Needs `read`."""
        parent = await self._sandboxes.get(principal, parent_id)
        return [parent, *await self._of(parent)]

    async def get(self, principal: Principal, parent_id: str, subdomain: str) -> Sandbox:
        """One of those. NotFound, always the same, for any other."""
        wanted = sandbox_id_of(subdomain)
        for one in await self.list(principal, parent_id):
            if one.id == wanted:
                return one
        raise NotFound("sandbox not found")

    async def destroy(
        self,
        principal: Principal,
        parent_id: str,
        subdomain: str,
        *,
        delete_files: bool,
        request_id: str | None = None,
    ) -> None:
        """End a child; its workspace stays unless its files are to be deleted. Needs `execute`, and no session token.
        InvalidInput for the sandbox itself; NotFound."""
        principal.require(Scope.EXECUTE)
        child = await self.get(principal, parent_id, subdomain)
        maker = await self._tokens.maker(principal)
        maker.require(Scope.EXECUTE, child.owner)
        if child.id == parent_id:
            raise InvalidInput("the main sandbox is not deleted here: destroy it by the gateway", field="subdomain")
        if not delete_files:
            await self._own.keep_files(child, KEPT + parent_id)
        await self._sandboxes.end(_owner_of(child), child.id, request_id=request_id)

    async def abandon(self, child: Sandbox, *, request_id: str | None = None) -> None:
        """End one that could not be made whole."""
        await self._own.abandon(_owner_of(child), child.id, request_id=request_id)

    @asynccontextmanager
    async def _place(self, parent: Sandbox, name: str | None) -> AsyncGenerator[None]:
        """One of the parent's CHILDREN_MAX places, held until the child of that name stands in the records."""
        place = (parent.id, name)
        async with self._counting.hold(parent.id):
            making = [one for of, one in self._making if of == parent.id]  # before those that are recorded are read
            taken = {*making, *(one.name for one in await self._of(parent))}
            if len(taken) + await self._kept(parent) >= CHILDREN_MAX:
                at = f"{CHILDREN_MAX}/{CHILDREN_MAX}"
                raise QuotaExceeded(f"child sandbox limit reached ({at}); workspaces that ended ones left count too")
            self._making.append(place)
        try:
            yield
        finally:
            self._making.remove(place)

    async def _check_own(self, maker: Principal, parent: Sandbox, snapshot_id: str) -> None:
        """A token's maker may have many more, which whoever holds it may not read."""
        workspace = (await self._own.find_snapshot(maker, snapshot_id)).workspace
        family = [parent, *await self._of(parent)]
        if all(mount.workspace != workspace or mount.read_only for one in family for mount in one.spec.workspaces):
            raise NotFound("snapshot not found")

    async def _of(self, parent: Sandbox) -> list[Sandbox]:
        found = await self._records.find_named_sandboxes((parent.owner,), NAMESPACE + parent.id, None)
        return [one for one in reversed(found) if not one.ended or one.may_wake]

    async def _kept(self, parent: Sandbox) -> int:
        """How many workspaces its children left: else a token of it could take all that its owner may have."""
        found = await self._records.list_workspaces(owner=parent.owner, limit=LISTED_MAX)
        return sum(KEPT + parent.id in one.tags for one in found)

    def _ended(self, sandbox: Sandbox) -> None:
        if not sandbox.ended or sandbox.may_wake:
            return
        if is_childrens(sandbox.namespace):
            parent_id = (sandbox.namespace or "").removeprefix(NAMESPACE)
            self._hubs.of(parent_id).publish(DELETED, "", {"subdomain": subdomain(sandbox.id)}, everybody=True)
        elif sandbox.id in self._parents:
            self._parents.discard(sandbox.id)
            self._background.spawn(self._end_all(sandbox), f"end the children of {sandbox.id}")

    async def _end_all(self, parent: Sandbox) -> None:
        for child in await self._of(parent):
            await self._end(child)

    async def _sweep(self) -> None:
        states = {SandboxState.RUNNING, SandboxState.SUSPENDED}
        found = await self._records.list_sandboxes(states=states, limit=LISTED_MAX)
        for child in found:
            if not is_childrens(child.namespace):
                continue
            parent_id = (child.namespace or "").removeprefix(NAMESPACE)
            self._parents.add(parent_id)
            if await self._has_ended(parent_id):
                self._parents.discard(parent_id)
                await self._end(child)

    async def _has_ended(self, parent_id: str) -> bool:
        parent = await self._records.get_sandbox(parent_id)
        return parent is None or parent.removed or (parent.ended and not parent.may_wake)

    async def _end(self, child: Sandbox) -> None:
        with suppress(AtollError):  # it ends by itself, or the next start looks again
            await self._sandboxes.end(_owner_of(child), child.id)


def is_childrens(namespace: str | None) -> bool:
    """Whether names in it are those of children."""
    return namespace is not None and namespace.startswith(NAMESPACE)


def _owner_of(sandbox: Sandbox) -> Principal:
    return Principal(sandbox.owner, KeyKind.INTERNAL, frozenset(Scope))


def _like(parent: SandboxSpec, asked: SandboxSpec) -> SandboxSpec:
    """Never more than the parent reaches: its network is the parent's."""
    return replace(
        asked,
        image=parent.image if asked.image == SandboxSpec().image else asked.image,
        network=parent.network,
        allow=parent.allow,
        resources=replace(parent.resources, timeout_s=asked.resources.timeout_s or parent.resources.timeout_s),
    )
