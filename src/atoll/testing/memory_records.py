"""MemoryRecords: the records contract in dictionaries, for tests of everything above the store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from atoll.domain.errors import Conflict, NameTaken, NotFound, StaleVersion, Unavailable
from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.key_bounds import check_own
from atoll.domain.quota import Bound, Overrides, QuotaChange, QuotaUse, Spend
from atoll.domain.quota_rules import with_quotas
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.records.base import KeyUse, Records
from atoll.testing.memory_access_keys import MemoryAccessKeys
from atoll.testing.memory_accounts import MemoryAccounts
from atoll.testing.memory_bills import MemoryBills
from atoll.testing.memory_child_keys import MemoryChildKeys
from atoll.testing.memory_events import MemoryEvents
from atoll.testing.memory_fixtures import MemoryFixtures
from atoll.testing.memory_groups import MemoryGroups
from atoll.testing.memory_ledger import MemoryLedger
from atoll.testing.memory_previews import MemoryPreviews
from atoll.testing.memory_quotas import MemoryQuotas
from atoll.testing.memory_rates import MemoryRates
from atoll.testing.memory_sandbox_tokens import MemorySandboxTokens
from atoll.testing.memory_secrets import MemorySecrets
from atoll.testing.memory_task_histories import MemoryTaskHistories
from atoll.testing.memory_tasks import MemoryTasks
from atoll.testing.memory_users import MemoryUsers
from atoll.testing.memory_webhooks import MemoryWebhooks
from atoll.testing.memory_workers import MemoryWorkers
from atoll.testing.memory_workspace_records import MemoryWorkspaceRecords
from atoll.testing.memory_wrapped_keys import MemoryWrappedKeys


class MemoryRecords(
    MemoryAccessKeys,
    MemorySandboxTokens,
    MemoryWebhooks,
    MemoryWorkers,
    MemoryEvents,
    MemoryChildKeys,
    MemoryAccounts,
    MemoryBills,
    MemoryRates,
    MemoryFixtures,
    MemoryGroups,
    MemoryLedger,
    MemoryPreviews,
    MemoryQuotas,
    MemorySecrets,
    MemoryTaskHistories,
    MemoryTasks,
    MemoryUsers,
    MemoryWrappedKeys,
    MemoryWorkspaceRecords,
    Records,
):
    """Nothing is awaited inside a method, so each is one transaction. `down` True makes every call Unavailable."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.writes = 0  # of sandboxes: tests count them
        self._sandboxes: dict[str, Sandbox] = {}
        self._keys: dict[str, ApiKey] = {}
        self._uses: list[KeyUse] = []

    async def start(self) -> None:
        """Nothing to migrate."""

    async def close(self) -> None:
        """Nothing is held."""

    async def ping(self) -> None:
        self._check()

    # sandboxes

    async def add_sandbox(self, sandbox: Sandbox, event: Event, *, bounds: Sequence[Bound] = ()) -> list[QuotaUse]:
        self._check()
        if sandbox.id in self._sandboxes:
            raise Conflict(f"sandbox {sandbox.id} exists")
        self._check_sandbox_name(sandbox)
        used = self._check_bounds(bounds, sandbox.spec.resources.memory_bytes, new=True)
        self._hold_owner(sandbox.owner)
        self._sandboxes[sandbox.id] = replace(sandbox, created_at=sandbox.created_at.astimezone(UTC))
        self._log(event)
        self.writes += 1
        return used

    async def swap_sandbox(
        self, sandbox: Sandbox, event: Event | None, *, bounds: Sequence[Bound] = (), charges: Sequence[Spend] = ()
    ) -> Sandbox:
        self._check()
        stored = self._sandboxes.get(sandbox.id)
        if stored is None:
            raise NotFound(f"sandbox {sandbox.id} not found")
        if stored.version != sandbox.version:
            raise StaleVersion()
        self._check_sandbox_name(sandbox)
        self._check_bounds(bounds, sandbox.spec.resources.memory_bytes, new=False)
        self._charge(charges, datetime.now(UTC))
        after = self._sandboxes[sandbox.id] = replace(sandbox, version=sandbox.version + 1)
        self._log(event)
        self.writes += 1
        return after

    async def get_sandbox(self, sandbox_id: str) -> Sandbox | None:
        self._check()
        return self._sandboxes.get(sandbox_id)

    async def list_sandboxes(
        self,
        *,
        owner: str | tuple[str, ...] | None = None,
        states: Collection[SandboxState] | None = None,
        removed: bool | None = False,
        limit: int = 1000,
    ) -> list[Sandbox]:
        self._check()
        found = [
            sandbox
            for sandbox in self._sandboxes.values()
            if (owner is None or sandbox.owner in ((owner,) if isinstance(owner, str) else owner))
            and (states is None or sandbox.state in states)
            and (removed is None or sandbox.removed is removed)
        ]
        found.reverse()  # later ones first among those of one instant
        found.sort(key=lambda sandbox: sandbox.created_at, reverse=True)
        return found[:limit]

    async def find_named_sandboxes(self, owners: tuple[str, ...], namespace: str, name: str | None) -> list[Sandbox]:
        found = await self.list_sandboxes(owner=owners, limit=1_000_000)
        return [one for one in found if one.namespace == namespace and name in (None, one.name)]

    def _check_sandbox_name(self, sandbox: Sandbox) -> None:
        """One of a kind while it has not ended."""

        def named(one: Sandbox) -> tuple[str, str | None, str | None] | None:
            unique = one.namespace is not None and one.ended_at is None and not one.removed
            return (one.owner, one.namespace, one.name) if unique else None

        wanted = named(sandbox)
        others = (one for one in self._sandboxes.values() if one.id != sandbox.id)
        if wanted is not None and any(named(one) == wanted for one in others):
            raise NameTaken(f"there is a sandbox {sandbox.name!r} in the namespace {sandbox.namespace!r} already")

    async def count_live(self, owner: str | None = None) -> int:
        self._check()
        return self._live(owner)

    async def prune_sandboxes(self, ended_before: datetime) -> int:
        self._check()
        old = [s.id for s in self._sandboxes.values() if s.ended_at and s.ended_at < ended_before and not s.live]
        for sandbox_id in old:
            del self._sandboxes[sandbox_id]
        return len(old)

    # keys

    async def add_key(
        self, key: ApiKey, event: Event, *, most: int | None = None, quotas: Overrides | None = None
    ) -> None:
        self._check()
        if most is not None:
            own = [one for one in self._keys.values() if one.owner == key.owner and one.parent is None]
            check_own(sum(one.usable(key.created_at) for one in own), most)
        if key.id in self._keys or any(known.hash == key.hash for known in self._keys.values()):
            raise Conflict(f"key {key.id} exists")
        self._keys[key.id] = key
        self._log(self._with_quotas(event, key, quotas))

    async def swap_key(
        self,
        key: ApiKey,
        event: Event | None,
        *,
        quotas: QuotaChange | None = None,
        children_end: Event | None = None,
    ) -> ApiKey:
        self._check()
        stored = self._keys.get(key.id)
        if stored is None:
            raise NotFound(f"key {key.id} not found")
        if stored.version != key.version:
            raise StaleVersion()
        after = self._keys[key.id] = replace(key, version=key.version + 1, last_used_at=stored.last_used_at)
        if quotas is not None:
            told = self._change_overrides(quotas)
            event = None if event is None else with_quotas(event, told)
        self._log(event)
        if children_end is not None:
            self._end_children(key.id, children_end)
        return after

    async def find_key(self, key_hash: str) -> ApiKey | None:
        self._check()
        return next((key for key in self._keys.values() if key.hash == key_hash), None)

    async def get_key(self, key_id: str) -> ApiKey | None:
        self._check()
        return self._keys.get(key_id)

    async def list_keys(self, *, owner: str | None = None, include_revoked: bool = False) -> list[ApiKey]:
        self._check()
        keys = [key for key in self._keys.values() if include_revoked or key.revoked_at is None]
        keys = [key for key in keys if owner in (None, key.owner)]
        return sorted(keys, key=lambda key: key.created_at)

    async def log_key_use(self, uses: Sequence[KeyUse]) -> None:
        self._check()
        self._uses += uses
        for use in uses:
            key = self._keys.get(use.key_id)
            if key is not None and (key.last_used_at is None or key.last_used_at < use.at):
                self._keys[key.id] = replace(key, last_used_at=use.at)

    async def prune_key_use(self, before: datetime) -> int:
        self._check()
        kept = [use for use in self._uses if use.at >= before]
        pruned = len(self._uses) - len(kept)
        self._uses = kept
        return pruned

    def _check(self) -> None:
        if self.down:
            raise Unavailable("the records are down")

    def _owned(self, owner: str) -> list[tuple[str, int]]:
        return [
            ("sandboxes", sum(one.owner == owner and not one.ended for one in self._sandboxes.values())),
            ("workspaces", sum(one.owner == owner and one.deleted_at is None for one in self._workspaces.values())),
            ("secrets", sum(one.owner == owner for one in self._secrets.values())),
            ("workers", sum(one.author == owner for one in self._workers.values())),
            ("keys", sum(one.owner == owner and one.revoked_at is None for one in self._keys.values())),
        ]

    def _forget_leavings(self, principal: str) -> None:
        hooks = [one.id for one in self._webhooks.values() if one.owner == principal]
        self._webhooks = {name: one for name, one in self._webhooks.items() if name not in hooks}
        self._cursors = {key: seq for key, seq in self._cursors.items() if key[0] not in hooks}
        self._overrides.pop(principal, None)
        self._shares = {key: one for key, one in self._shares.items() if one.principal != principal}

    def _live(self, owner: str | None) -> int:
        return sum(1 for s in self._sandboxes.values() if s.live and (owner is None or s.owner == owner))
