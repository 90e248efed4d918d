"""The composition root: the list of what a server is made of: settings -> adapters -> services -> surfaces.

`serve` runs what it makes; tests make it with fakes. What takes more than a line to put together is in `composition`.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any

from starlette.types import Receive, Scope, Send

import atoll
from atoll.adapters import (
    make_agents,
    make_installs,
    open_blob_store,
    open_copy_store,
    open_runtime,
    open_store,
    open_traces,
    open_vault,
    proof_of,
)
from atoll.blobs.base import Blobs
from atoll.composition.credentials import external_of, groups_of, identity_of, users_of
from atoll.composition.gateway import gateway_of
from atoll.composition.keys import make_admin_key, make_keys
from atoll.composition.models import make_model_calls
from atoll.composition.mounting import Beside, mount, mount_beside
from atoll.composition.rates import counters
from atoll.composition.running import running
from atoll.composition.second_store import make_second_store
from atoll.composition.standing import standing_of
from atoll.composition.surfaces import once_of, showing_of
from atoll.composition.webhooks import deliveries_of
from atoll.composition.work import sandboxes_of, tasks_of
from atoll.composition.workspaces import workspace_parts_of
from atoll.limits import audit_limits, door_limits, marketplace_limits, outbound_limits, price_table, quota_limits
from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.served import listeners_of, object_door, ops_of, tools_of
from atoll.services.audit.parts import Audit
from atoll.services.authorities import Authorities
from atoll.services.charging.charging import Charging
from atoll.services.charging.compute import ComputeCharges
from atoll.services.charging.spending import PricedSpending
from atoll.services.charging.storage import StorageCharges
from atoll.services.daemon.hub import Hubs
from atoll.services.identity.capabilities import Capabilities
from atoll.services.identity.connected import Connected
from atoll.services.identity.memberships import Memberships
from atoll.services.isolation import Isolation
from atoll.services.keys import Keys
from atoll.services.ledger.expiring import Expiring
from atoll.services.ledger.ledger import Ledger
from atoll.services.ledger.proving import Proving
from atoll.services.marketplace.marketplace import Marketplace
from atoll.services.objects.access_keys import AccessKeys
from atoll.services.outbound import Outbound
from atoll.services.owner_key import OwnerKey
from atoll.services.quotas import Quotas
from atoll.services.sandbox_tokens import SandboxTokens
from atoll.services.secret_giving import SecretGiving
from atoll.services.secrets import Secrets
from atoll.services.webhooks.webhooks import Webhooks
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.computesdk.parts import ComputeParts
from atoll.surfaces.door import Door
from atoll.surfaces.execbox.answers import Error
from atoll.surfaces.execbox.errors import ExecboxDialect
from atoll.surfaces.openapi import document
from atoll.surfaces.routing import PathRoute
from atoll.telemetry.identity_metrics import ProvidersUp
from atoll.telemetry.metrics import Metrics
from atoll.vaults.base import Vault


class Application:
    """One server's parts, and the ASGI application that serves them between the two ends of `running`."""

    def __init__(
        self,
        settings: Settings,
        records: Records,
        runtime: Runtime,
        keys: Keys | None = None,
        blobs: Blobs | None = None,
        vault: Vault | None = None,
        second: Blobs | None = None,
    ) -> None:
        self.settings = settings
        self.records, self.runtime = records, runtime
        self.blobs = blobs or open_blob_store(settings)
        self.vault = vault or open_vault(settings)
        self.metrics = Metrics(tenants=settings.api.metrics_tenants)
        self.traces = open_traces(settings, atoll.__version__, self.metrics.registry)
        self.counters = counters(settings, records)
        self.outbound = Outbound(outbound_limits(settings))
        self.isolation = Isolation(runtime)

        # Money, and how much everybody may have.
        self.quotas = Quotas(records, quota_limits(settings), metrics=self.metrics)
        self.ledger = Ledger(records, price_table(settings), metrics=self.metrics.ledger)
        self.expiring = Expiring(self.ledger)
        every_s = settings.ledger.prove_h * 3600
        self.proving = Proving(proof_of(settings), every_s=every_s, metrics=self.metrics.ledger)
        spending = PricedSpending(records, self.ledger)

        # Files.
        parts = workspace_parts_of(self)
        parts.chunks.allowance.spending = spending
        self.workspaces = Workspaces(parts)
        copies = second or open_copy_store(settings)
        self.second_store, self.healer = make_second_store(
            settings, records, self.blobs, copies, self.vault, self.metrics
        )
        parts.chunks.healer = self.healer

        # Who asks.
        cache_s = settings.keys.cache_s
        self.keys = keys or make_keys(settings, records)
        self.metrics.count_dropped_uses(lambda: self.keys.dropped_uses)
        self.admin_key = make_admin_key(settings)
        self.owner_key: OwnerKey | None = None  # from the start on, where this server may hold one
        self.memberships = Memberships(records, cache_s)
        self.groups = groups_of(self)
        self.capabilities = Capabilities(records, self.keys, self.workspaces.access)
        self.auth = users_of(self)
        self.external = external_of(self)
        self.metrics.registry.register(ProvidersUp(self.external.answering))
        self.connected = Connected(
            records, self.auth.standing, self.keys, memberships=self.memberships, cache_s=cache_s
        )
        self.access_keys = AccessKeys(records, self.vault, self.keys, self.auth.standing, cache_s=cache_s)
        self.sandbox_tokens = SandboxTokens(
            records, self.connected, self.auth.standing, self.memberships, cache_s=cache_s
        )
        self.identity = identity_of(self)

        # Sandboxes, and what is done in them.
        self.secrets = Secrets(records, self.vault)
        authorities = Authorities(settings.folder.gateway_seed)
        self.giving = SecretGiving(records, self.secrets, authorities)
        self.agents = make_agents(settings)
        self.installs = make_installs(settings, self.agents)
        self.sandboxes = sandboxes_of(self, spending)
        self.workspaces.join(self.sandboxes)
        self.model_calls = make_model_calls(settings, self.ledger, self.giving, self.metrics)
        self.tasks = self.model_calls.tasks = tasks_of(self)
        compute = ComputeCharges(records, self.ledger, self.sandboxes.running, dry=self.tasks.dry)
        self.charging = Charging(compute, StorageCharges(records, self.ledger))
        self.marketplace = Marketplace(records, self.sandboxes, self.ledger, marketplace_limits(settings))

        # What happened, and who is told.
        anchor = settings.folder.audit_anchor
        self.audit = Audit(records, self.vault, anchor, self.memberships.of, self.metrics, audit_limits(settings))
        self.webhooks = Webhooks(records, self.vault, self.outbound, per_owner=settings.webhooks.max_per_owner)
        self.deliveries = deliveries_of(self)
        self.metrics.registry.register(standing_of(self))

        # What the world speaks to.
        self.dialect = ExecboxDialect()
        self.door = Door(self.identity, door_limits(settings), self.counters)
        self.door.requests = self.audit.requests
        self.once = once_of(self)
        self.showing = showing_of(self)
        self.hubs = Hubs()
        self.computes = ComputeParts(records, self.sandboxes, self.workspaces, self.sandbox_tokens, self.hubs, settings)
        self.ops = ops_of(self)
        self.tools = tools_of(self)
        mounted = mount(self)
        self.operations, self.routes, self._asgi = mounted.operations, mounted.routes, mounted.asgi
        self.listeners = listeners_of(self)
        self.objects = object_door(self, parts)
        self.gateway = self.sandboxes.gates.servant = gateway_of(self, authorities)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._asgi(scope, receive, send)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Start every part in order; at the end, or when one cannot start, close those that did."""
        return running(self)

    @cached_property
    def beside(self) -> list[Beside]:
        """What is served at ports of its own."""
        return mount_beside(self)

    def drain(self) -> None:
        """The server stops: what would never end by itself ends now, and what is cut short is not charged."""
        self.audit.drain()
        self.sandboxes.watches.drain()
        self.marketplace.drain()

    def openapi(self) -> dict[str, Any]:
        """The document of the routes that this application serves."""
        served = [one for route in self.routes if isinstance(route, PathRoute) for one in route.operations]
        return document(served, Error, version=atoll.__version__)


def create_app(settings: Settings, *, runtime: Runtime | None = None, records: Records | None = None) -> Application:
    """The application that the settings describe; a given runtime or store is used in place of theirs."""
    return Application(settings, records or open_store(settings), runtime or open_runtime(settings))
