"""Parts: everything that the sandboxes service is made of, put together over the plug points; app.py makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.services.access import Access
from atoll.services.admission import Admission
from atoll.services.agents.installed import NO_AGENTS, AgentLayers
from atoll.services.background import Background
from atoll.services.charging.spending import FreeOfCharge, Spending
from atoll.services.clock import Clock, utc_now
from atoll.services.endings import Endings
from atoll.services.gates import Gates
from atoll.services.giving import Giving, NoGiving
from atoll.services.limits import Limits
from atoll.services.listeners import Listeners
from atoll.services.lives import Lives
from atoll.services.makings import Makings
from atoll.services.metering import Metering
from atoll.services.mounting import Mounting, NoMounting
from atoll.services.ports import Ports
from atoll.services.quotas import QuotaLimits, Quotas, plans_with
from atoll.services.reconciler import Reconciler
from atoll.services.sandbox_upkeep import SandboxUpkeep
from atoll.services.suspensions import Suspensions
from atoll.services.templates import Templates
from atoll.services.watching import Watching
from atoll.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class SandboxParts:
    """The parts, each made once."""

    access: Access
    admission: Admission
    endings: Endings
    listeners: Listeners
    makings: Makings
    metering: Metering
    ports: Ports
    reconciler: Reconciler
    suspensions: Suspensions
    templates: Templates
    upkeep: SandboxUpkeep
    watching: Watching


def make_sandbox_parts(
    records: Records,
    runtime: Runtime,
    data: Path,
    *,
    limits: Limits | None = None,
    aliases: Mapping[str, str] | None = None,
    public_host: str = "127.0.0.1",
    clock: Clock = utc_now,
    metrics: Metrics | None = None,
    boot_id: Callable[[], str] | None = None,
    workspaces: Mounting | None = None,
    secrets: Giving | None = None,
    quotas: Quotas | None = None,
    agents: AgentLayers = NO_AGENTS,
    spending: Spending | None = None,
) -> SandboxParts:
    """The parts over plug points that are started before and closed after them. `data` is the data folder (`logs/` and
    `layers/` below it are ours); `aliases` map image names to templates; `public_host` stands in the URLs of exposed
    ports, whose listeners bind to 127.0.0.1. `boot_id` tells one life of the machine from another. `workspaces` gives
    what sandboxes mount, and hears of their ends; `secrets` gives what those are. `quotas` say who may have how much;
    by default a standard key may have `limits.sandboxes_per_key` sandboxes. `agents` are the programs that `spec.agent`
    may name; `spending` says whether somebody can pay for compute."""
    limits, metrics = limits or Limits(), metrics or Metrics()
    access = Access(
        records=records,
        runtime=runtime,
        data=data,
        limits=limits,
        clock=clock,
        lives=Lives(records),
        background=Background(),
        metrics=metrics,
        quotas=quotas or _default_quotas(records, limits, clock, metrics),
        gates=Gates(runtime, limits, metrics),
        vanished=lambda live: endings.lost(live),
        mounting=workspaces or NoMounting(),
        giving=secrets or NoGiving(),
        spending=spending or FreeOfCharge(),
        wake=lambda sandbox: suspensions.wake(sandbox),
    )
    listeners = Listeners(runtime, limits, lambda sandbox_id: suspensions.wake_for_port(sandbox_id))
    endings = Endings(access, listeners)
    watching = Watching(access, endings, listeners)
    templates = Templates(runtime, data, limits, dict(aliases or {}), agents)
    reconciler = Reconciler(access, endings, templates, watching.adopt, boot_id=boot_id)
    makings = Makings(access, endings, templates, listeners, watching.adopt)
    suspensions = Suspensions(access, endings, makings, listeners)
    metering = Metering(access, endings)
    return SandboxParts(
        access=access,
        admission=Admission(access),
        endings=endings,
        listeners=listeners,
        makings=makings,
        metering=metering,
        ports=Ports(access, public_host),
        reconciler=reconciler,
        suspensions=suspensions,
        templates=templates,
        upkeep=SandboxUpkeep(access, watching, reconciler, suspensions, metering),
        watching=watching,
    )


def _default_quotas(records: Records, limits: Limits, clock: Clock, metrics: Metrics) -> Quotas:
    return Quotas(records, QuotaLimits(plans_with(limits.sandboxes_per_key)), clock=clock, metrics=metrics)
