"""The benchmark's own arithmetic and the floor that everything is held against."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from bench.figures import Report, at
from bench.floor import NAMESPACES
from bench.rounds import Rounds


def test_a_ratio_is_the_value_over_the_value_that_it_is_held_against(tmp_path: Path) -> None:
    report = Report()
    report.times("ours", "ours", [4.0, 6.0, 8.0], against="floor")
    report.times("floor", "floor", [1.0, 2.0, 3.0])
    report.missing("docker", "docker", "not measured: no engine runs")
    report.write(tmp_path / "build" / "bench.json")
    figures = {figure["name"]: figure for figure in json.loads((tmp_path / "build" / "bench.json").read_text())}
    assert figures["ours"] == {"name": "ours", "value": 6.0, "unit": "ms", "ratio": 3.0, "against": "floor"}
    assert figures["floor"] == {"name": "floor", "value": 2.0, "unit": "ms", "ratio": None, "against": None}
    assert figures["ours.p99"]["value"] == 8.0
    assert figures["docker"]["value"] is None


def test_a_figure_held_against_one_that_was_not_measured_has_no_ratio() -> None:
    report = Report()
    report.times("ours", "ours", [4.0], against="docker")
    report.missing("docker", "docker", "not measured")
    assert report.figures()[0].ratio is None and report.figures()[0].against is None


@pytest.mark.parametrize(("quantile", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_quantile_is_a_value_that_was_measured(quantile: float, value: int) -> None:
    assert at(list(range(1, 101)), quantile) == value


def test_the_floor_runs_in_all_the_namespaces_and_leaves_nothing() -> None:
    with Rounds("bench.floor") as floor:
        to_exit, whole = floor.once()
        assert 0 < to_exit <= whole
    assert floor.process.returncode == 0
    assert not list(Path(tempfile.gettempdir()).glob("atoll-floor-*"))
    assert "atoll-floor-" not in Path("/proc/self/mounts").read_text()
    assert NAMESPACES == 0x6C020000  # mount, uts, ipc, pid, net
