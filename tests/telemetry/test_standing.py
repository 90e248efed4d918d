"""How the server stands, as Prometheus sees it: what is not known has no series."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from atoll.telemetry.standing_metrics import Standing


def registry(isolated: bool | None, age_s: float | None, **disks: Path) -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(Standing("1.2", isolated=lambda: isolated, backup_age_s=lambda: age_s, disks=disks))
    return found


def test_each_is_told_once_it_is_known(tmp_path: Path) -> None:
    value = registry(True, 90.0, data=tmp_path).get_sample_value
    assert value("atoll_build_info", {"version": "1.2"}) == 1
    assert (value("isolation_proved"), value("backup_age_seconds")) == (1, 90)
    free, size = (value(f"disk_{name}_bytes", {"folder": "data"}) for name in ("free", "size"))
    assert free is not None and size is not None and 0 < free <= size
    assert registry(False, None).get_sample_value("isolation_proved") == 0


def test_what_is_unknown_has_no_series_and_no_path_is_told(tmp_path: Path) -> None:
    found = registry(None, None, blobs=tmp_path / "none")
    names = {sample.name for family in found.collect() for sample in family.samples}
    assert names == {"atoll_build_info"}
    assert str(tmp_path) not in repr(list(registry(None, None, data=tmp_path).collect()))
