"""The local runtime passes the suite that every runtime passes (E23)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.runtimes.local.runtime import LocalRuntime
from atoll.testing.runtime_conformance import RuntimeConformance
from atoll.testing.runtime_conformance.suite import Machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the full isolation tier needs root"),
]


class TestLocalRuntime(RuntimeConformance):
    @pytest.fixture
    def machine(self, tmp_path: Path) -> Machine:
        return lambda: LocalRuntime(tmp_path / "data")
