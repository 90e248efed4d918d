"""The part of the records contract about events, their chains and the checkpoints; `Records` includes it.

Events come into being with the changes that they tell of: each method that changes something takes one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from atoll.domain.checkpoint import AuditKey, Checkpoint, Head
from atoll.domain.event import Event, EventQuery
from atoll.domain.event_chain import Link


class AuditRecords(ABC):
    """See `Records` for what holds of all."""

    @abstractmethod
    async def add_events(self, events: Sequence[Event]) -> None:
        """Append events that no change goes with: refusals, and what happens outside of the records."""

    @abstractmethod
    async def list_events(
        self, *, tenant: str | None = None, target: str | None = None, after_id: int = 0, limit: int = 1000
    ) -> list[Event]:
        """Oldest first."""

    @abstractmethod
    async def find_events(self, query: EventQuery) -> list[Event]:
        """In the order of their ids."""

    @abstractmethod
    async def follow_events(self, tenant: str, after_seq: int, limit: int) -> list[Event]:
        """A tenant's events behind that number, in the order of its chain, which is that of their commits."""

    @abstractmethod
    async def list_heads(self, tenants: Collection[str] | None = None) -> list[Head]:
        """Where chains end now."""

    @abstractmethod
    async def positions(self, after_id: int, tenants: Collection[str] | None = None) -> dict[str, int]:
        """For each tenant, up to which number its events are known to whoever has seen all up to that id.

        Where ids are not given in the order of the commits, the last moments before it count as not seen, but for the
        tenant of that very event: such a reader may see an event again, and misses none.
        """

    # verification

    @abstractmethod
    async def read_links(self, after: tuple[str, int] | None, limit: int, tenant: str | None = None) -> list[Link]:
        """The next ones of all chains, tenant by tenant, each from its first on."""

    @abstractmethod
    async def missing_events(self, tenant: str | None = None, limit: int = 100) -> list[Head]:
        """What a checkpoint or a head says that there is, and is not."""

    # checkpoints

    @abstractmethod
    async def unsigned_heads(self) -> tuple[Checkpoint | None, list[Head]]:
        """The last checkpoint (without its heads) and the heads that no checkpoint has."""

    @abstractmethod
    async def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Conflict when there is one of that number, or with one of these heads."""

    @abstractmethod
    async def list_checkpoints(self, after: int = 0, limit: int = 100) -> list[Checkpoint]:
        """With their heads, in the order of their numbers."""

    @abstractmethod
    async def add_audit_key(self, key: AuditKey, *, first: bool, event: Event) -> None:
        """`first`: Conflict when there is any."""

    @abstractmethod
    async def list_audit_keys(self) -> list[AuditKey]:
        """Oldest first."""
