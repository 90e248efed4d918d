"""The records contract: sandboxes, keys and events, each mutation in one transaction with its event.

Services call it; `atoll.testing.records_conformance` holds every store to these docstrings.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.quota import Bound, Overrides, QuotaChange, QuotaUse, Spend
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.records.access_keys import AccessKeyRecords
from atoll.records.accounts import AccountRecords
from atoll.records.audit import AuditRecords
from atoll.records.bills import BillRecords
from atoll.records.child_keys import ChildKeyRecords
from atoll.records.fixtures import FixtureRecords
from atoll.records.groups import GroupRecords
from atoll.records.idempotency import IdempotencyRecords
from atoll.records.ledger import LedgerRecords
from atoll.records.previews import PreviewRecords
from atoll.records.quotas import QuotaRecords
from atoll.records.rates import RateRecords
from atoll.records.sandbox_tokens import SandboxTokenRecords
from atoll.records.secrets import SecretRecords
from atoll.records.task_histories import TaskHistories
from atoll.records.tasks import TaskRecords
from atoll.records.users import UserRecords
from atoll.records.webhooks import WebhookRecords
from atoll.records.workers import WorkerRecords
from atoll.records.workspaces import WorkspaceRecords
from atoll.records.wrapped_keys import WrappedKeyRecords


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One request made with a key, for the `api_key_usage` log."""

    key_id: str
    endpoint: str  # the route's template, never a raw path
    method: str
    status_code: int
    at: datetime
    ip_address: str | None
    user_agent: str | None


class Records(
    AccessKeyRecords,
    ChildKeyRecords,
    AuditRecords,
    AccountRecords,
    BillRecords,
    RateRecords,
    FixtureRecords,
    GroupRecords,
    IdempotencyRecords,
    LedgerRecords,
    PreviewRecords,
    QuotaRecords,
    SandboxTokenRecords,
    SecretRecords,
    TaskHistories,
    TaskRecords,
    UserRecords,
    WebhookRecords,
    WorkerRecords,
    WorkspaceRecords,
    WrappedKeyRecords,
):
    """The store of facts. Returned objects are what is stored now, moments in UTC.

    Every method may be called concurrently, between `start` and `close`. Each is one transaction: all of it or nothing.
    Unavailable when the store is down, locked, full or slow; a connection may be lost during its commit, so after a
    failed change look again before you repeat it.
    """

    @abstractmethod
    async def start(self) -> None:
        """Bring the schema to this version's head (a migration cut short resumes or is rolled back) and connect."""

    @abstractmethod
    async def close(self) -> None:
        """Close connections; a second call does nothing."""

    @abstractmethod
    async def ping(self) -> None:
        """Unavailable when the store does not answer within a second."""

    # sandboxes

    @abstractmethod
    async def add_sandbox(self, sandbox: Sandbox, event: Event, *, bounds: Sequence[Bound] = ()) -> list[QuotaUse]:
        """Insert; what of the bounds is then used. Conflict when the id exists; QuotaExceeded beyond a bound; NameTaken
        when it has a namespace, and there is another of its owner's with its name in it that has not ended.

        The count and the insert are one atomic step: N+k concurrent calls at quota N insert exactly N.
        """

    @abstractmethod
    async def swap_sandbox(
        self, sandbox: Sandbox, event: Event | None, *, bounds: Sequence[Bound] = (), charges: Sequence[Spend] = ()
    ) -> Sandbox:
        """Store `sandbox` if the stored version still is `sandbox.version`; returns it with version + 1.

        StaleVersion when it changed meanwhile, NotFound when it does not exist, NameTaken as of `add_sandbox`. `event`
        None is for changes that are not mutations of the tenant's (usage figures). `bounds` are of one that becomes
        live again, and refuse as `add_sandbox` does. `charges` are counted in the same step, whatever their limits.
        """

    @abstractmethod
    async def get_sandbox(self, sandbox_id: str) -> Sandbox | None: ...

    @abstractmethod
    async def list_sandboxes(
        self,
        *,
        owner: str | tuple[str, ...] | None = None,
        states: Collection[SandboxState] | None = None,
        removed: bool | None = False,
        limit: int = 1000,
    ) -> list[Sandbox]:
        """Newest first, those of one owner or of any of several. `removed` None lists both."""

    @abstractmethod
    async def find_named_sandboxes(self, owners: tuple[str, ...], namespace: str, name: str | None) -> list[Sandbox]:
        """Those of that name, or all of the namespace; newest first, ended ones too, removed ones not."""

    @abstractmethod
    async def count_live(self, owner: str | None = None) -> int: ...

    @abstractmethod
    async def prune_sandboxes(self, ended_before: datetime) -> int:
        """Delete records that ended before that moment; returns how many. Live ones stay, however old."""

    # keys

    @abstractmethod
    async def add_key(
        self, key: ApiKey, event: Event, *, most: int | None = None, quotas: Overrides | None = None
    ) -> None:
        """Insert, with quotas of its own, which the event tells. Conflict when the id or the hash exists. QuotaExceeded
        when its owner has `most` keys without a parent that are neither revoked nor expired at `key.created_at`,
        counted in the same atomic step."""

    @abstractmethod
    async def swap_key(
        self,
        key: ApiKey,
        event: Event | None,
        *,
        quotas: QuotaChange | None = None,
        children_end: Event | None = None,
    ) -> ApiKey:
        """As `swap_sandbox`, for a key; its `last_used_at` is the use log's and stays as stored. With a change of its
        quotas, which the event tells. With `children_end` the keys that it made are revoked at that event's moment,
        and each that was not gets that event, as its target."""

    @abstractmethod
    async def find_key(self, key_hash: str) -> ApiKey | None:
        """By the SHA-256 of its text (a unique index: no scan)."""

    @abstractmethod
    async def get_key(self, key_id: str) -> ApiKey | None: ...

    @abstractmethod
    async def list_keys(self, *, owner: str | None = None, include_revoked: bool = False) -> list[ApiKey]:
        """Oldest first; everybody's, or one owner's."""

    @abstractmethod
    async def log_key_use(self, uses: Sequence[KeyUse]) -> None:
        """Append to `api_key_usage` and move each key's `last_used_at` forward; no mutations, so neither events nor
        new versions. Text that the store cannot hold is replaced, not refused: it is the client's.
        """

    @abstractmethod
    async def prune_key_use(self, before: datetime) -> int: ...
