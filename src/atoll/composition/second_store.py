"""The second store, as the settings want it: what copies to it, and what puts back from it what the first one lost."""

from __future__ import annotations

from atoll.adapters import dump_of
from atoll.blobs.base import Blobs
from atoll.limits import second_store_limits
from atoll.records.base import Records
from atoll.services.recovery.copy_journal import CopyJournal
from atoll.services.recovery.second_store import SecondStore
from atoll.services.workspaces.storage.healing import Healer
from atoll.settings import Settings
from atoll.telemetry.metrics import Metrics
from atoll.vaults.base import Vault


def make_second_store(
    settings: Settings, records: Records, blobs: Blobs, second: Blobs | None, vault: Vault, metrics: Metrics
) -> tuple[SecondStore, Healer] | tuple[None, None]:
    """Neither where `second` is none."""
    if second is None:
        return None, None
    key_file = settings.folder.owner_key
    healer = Healer(blobs, second, records, metrics)
    job = SecondStore(
        blobs,
        second,
        records,
        vault,
        CopyJournal(settings.folder.copied, settings.blobs.copy_url or ""),
        dump_of(settings),
        lambda: key_file.read_text() if key_file.exists() else None,
        scratch=settings.folder.dumps,
        limits=second_store_limits(settings),
        metrics=metrics,
        unreadable=healer.lost,
    )
    return job, healer
