"""Audit: the services of the audit trail of one server, put together; app.py makes and runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from atoll.records.base import Records
from atoll.services.audit.checkpoints import Checkpoints
from atoll.services.audit.events import Events, Memberships
from atoll.services.audit.feed import Feed
from atoll.services.audit.requests import RequestEvents, RequestLimits
from atoll.telemetry.metrics import Metrics
from atoll.vaults.base import Vault


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """As the settings of the same names."""

    checkpoint_s: float = 60.0
    streams_per_key: int = 20
    requests: RequestLimits = field(default_factory=RequestLimits)


class Audit:
    """Between `start`, when records and vault are started, and `close`."""

    def __init__(
        self,
        records: Records,
        vault: Vault,
        anchor: Path,
        memberships: Memberships,
        metrics: Metrics,
        limits: AuditLimits | None = None,
    ) -> None:
        limits = limits or AuditLimits()
        self.checkpoints = Checkpoints(records, vault, anchor, every_s=limits.checkpoint_s, metrics=metrics)
        self.requests = RequestEvents(records, metrics, limits.requests)
        self._feed = Feed(records)
        self.events = Events(records, self._feed, metrics, memberships, streams_per_key=limits.streams_per_key)

    async def start(self) -> None:
        """Begin to record requests, to follow the chains, and to sign them."""
        self.requests.start()
        self._feed.start()
        await self.checkpoints.start()

    def drain(self) -> None:
        """Let what would never end by itself end: the server stops."""
        self.events.end()

    async def close(self) -> None:
        """Write and sign what is left; a second call does nothing."""
        self.events.end()
        await self._feed.close()
        await self.requests.close()
        await self.checkpoints.close()
