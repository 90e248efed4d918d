"""The runtime conformance suite: what `atoll.runtimes.base` promises, as pytest tests that every adapter passes.

    class TestMyRuntime(RuntimeConformance):
        @pytest.fixture
        def machine(self, tmp_path):
            return lambda: MyRuntime(tmp_path / "data")

`machine()` gives a new runtime object on the same machine each time, as a restarted server would make one.
pytest-asyncio in auto mode runs it. A runtime that is not a whole computer takes features away (`features`) and
says how its own programs do what the suite needs (`flood_argv`, `echo_server_argv`).
"""

from atoll.testing.runtime_conformance.abilities import AbilityChecks
from atoll.testing.runtime_conformance.deadlines import DeadlineChecks
from atoll.testing.runtime_conformance.files import FileChecks
from atoll.testing.runtime_conformance.gates import GateChecks
from atoll.testing.runtime_conformance.given import GivenChecks
from atoll.testing.runtime_conformance.host_mounts import HostMountChecks
from atoll.testing.runtime_conformance.lifecycle import LifecycleChecks
from atoll.testing.runtime_conformance.output import OutputChecks
from atoll.testing.runtime_conformance.processes import ProcessChecks
from atoll.testing.runtime_conformance.terminals import TerminalChecks
from atoll.testing.runtime_conformance.trees import TreeChecks


class RuntimeConformance(
    LifecycleChecks,
    ProcessChecks,
    OutputChecks,
    TerminalChecks,
    FileChecks,
    GivenChecks,
    DeadlineChecks,
    AbilityChecks,
    GateChecks,
    HostMountChecks,
    TreeChecks,
):
    """All checks; a subclass gives the `machine` fixture."""


__all__ = ["RuntimeConformance"]
