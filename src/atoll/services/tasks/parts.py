"""Parts: the tasks service, put together; app.py calls it, after the services that it stands on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from atoll.agents.base import Agent
from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.services.agents.installs import AgentInstalls
from atoll.services.background import Background
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.memberships import Memberships
from atoll.services.sandboxes import Sandboxes
from atoll.services.tasks.access import TaskAccess
from atoll.services.tasks.feed import Feed
from atoll.services.tasks.layers import InstalledLayers
from atoll.services.tasks.money import Money
from atoll.services.tasks.requests import TaskLimits
from atoll.services.tasks.server_name import ServerName
from atoll.services.tasks.tasks import Tasks
from atoll.services.workspaces.workspaces import Workspaces
from atoll.sidekick.gates import MODEL_PORT
from atoll.telemetry.metrics import Metrics


def make_tasks(
    records: Records,
    runtime: Runtime,
    sandboxes: Sandboxes,
    workspaces: Workspaces,
    agents: Mapping[str, Agent],
    installs: AgentInstalls,
    memberships: Memberships,
    stands: Callable[[str, str], Awaitable[object]],
    money: Money,
    modelled: Callable[[str], None],
    *,
    name_file: Path,
    limits: TaskLimits,
    metrics: Metrics,
    clock: Clock = utc_now,
) -> Tasks:
    """Not started yet."""
    return Tasks(
        TaskAccess(
            server=ServerName(name_file),
            records=records,
            runtime=runtime,
            sandboxes=sandboxes,
            workspaces=workspaces,
            agents=agents,
            layers=InstalledLayers(installs),
            money=money,
            feed=Feed(records),
            limits=limits,
            clock=clock,
            metrics=metrics,
            background=Background(),
            roles=memberships.of,
            stands=stands,
            model_url=f"http://127.0.0.1:{MODEL_PORT}",
            modelled=modelled,
        )
    )
