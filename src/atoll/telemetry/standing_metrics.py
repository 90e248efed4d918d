"""How the server stands, read when somebody looks: its isolation, its disks, its backups and the proof of its ledger.

The application registers it with what tells each of them; docs/observability.md says what the numbers mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Standing(Collector):
    """What is not known yet has no series: an alert that waits for one says so itself."""

    def __init__(
        self,
        version: str,
        *,
        isolated: Callable[[], bool | None],
        backup_age_s: Callable[[], float | None],
        disks: Mapping[str, Path],
    ) -> None:
        """`disks`: folders by the names that they are told under; paths would be seen by everybody."""
        self._version = version
        self._isolated = isolated
        self._backup_age_s = backup_age_s
        self._disks = dict(disks)

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("atoll_build_info", "The version that runs", labels=("version",))
        info.add_metric((self._version,), 1)
        yield info
        isolated = self._isolated()
        if isolated is not None:
            yield GaugeMetricFamily("isolation_proved", "Whether the isolation was proved", value=float(isolated))
        age_s = self._backup_age_s()
        if age_s is not None:
            yield GaugeMetricFamily("backup_age_seconds", "Since the newest whole backup", value=age_s)
        size = GaugeMetricFamily("disk_size_bytes", "Of the file system of a folder", labels=("folder",))
        free = GaugeMetricFamily("disk_free_bytes", "What the server may still write there", labels=("folder",))
        for name, folder in self._disks.items():
            try:
                found = os.statvfs(folder)
            except OSError:
                continue
            size.add_metric((name,), found.f_blocks * found.f_frsize)
            free.add_metric((name,), found.f_bavail * found.f_frsize)
        yield size
        yield free
