"""A running sidekick for the tests of its rooms; it must have no complaint and keep no descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sidekick.running import RunningSidekick, until


@pytest.fixture
def sidekick(tmp_path: Path) -> Iterator[RunningSidekick]:
    folder = tmp_path / "s"
    folder.mkdir()
    with RunningSidekick(folder) as running:
        before = running.descriptors()
        yield running
        assert running.process.poll() is None, running.log()
        until(lambda: running.descriptors() <= before)
        assert running.log() == ""
