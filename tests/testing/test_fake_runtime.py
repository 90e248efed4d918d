"""The fake passes the suite that every runtime passes, but for what it does not claim."""

from __future__ import annotations

import pytest

from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from atoll.testing.runtime_conformance import RuntimeConformance
from atoll.testing.runtime_conformance.suite import Machine


class TestFakeRuntime(RuntimeConformance):
    features = frozenset()

    @pytest.fixture
    def machine(self) -> Machine:
        host = FakeHost()
        return lambda: FakeRuntime(host)

    def flood_argv(self, size: int) -> tuple[str, ...]:
        return ("flood", str(size))

    def echo_server_argv(self, port: int) -> tuple[str, ...]:
        return ("listen", str(port))
