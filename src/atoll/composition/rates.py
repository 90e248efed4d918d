"""Where rates are counted, as the settings want it: by one server alone, or by all that share a database."""

from __future__ import annotations

from collections.abc import Callable

from atoll.records.base import Records
from atoll.services.rates.counters import Counters
from atoll.services.rates.local_counters import LocalCounters
from atoll.services.rates.shared_counters import SharedCounters
from atoll.settings import Settings


def counters(settings: Settings, records: Records) -> Callable[[int], Counters]:
    """What makes counters of at most that many names; shared with the other servers where there can be some."""
    if settings.rates.shared and has_peers(settings):
        return lambda names_max: SharedCounters(records, names_max)
    return LocalCounters


def has_peers(settings: Settings) -> bool:
    """Whether other servers may work on the same records."""
    return settings.database_url.startswith("postgresql")
