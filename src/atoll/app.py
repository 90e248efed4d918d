"""The composition root: settings -> adapters -> services -> surfaces -> one ASGI application.

`serve` runs what it makes; tests make it with fakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import structlog
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

import atoll
from atoll.adapters import (
    dump_of,
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
from atoll.domain.errors import AtollError, Conflict, Unavailable
from atoll.domain.principal import Principal
from atoll.domain.workspace import DEFAULT_NAME
from atoll.gateway.api import ApiGateway
from atoll.gateway.egress import Egress
from atoll.gateway.gateway import Gateway
from atoll.gateway.models import model_streams
from atoll.gateway.resolver import NameServers
from atoll.limits import (
    audit_limits,
    auth_limits,
    bootstrap_texts,
    carry_limits,
    delivery_limits,
    door_limits,
    identity_providers,
    marketplace_limits,
    model_limits,
    model_providers,
    outbound_limits,
    preview_limits,
    price_table,
    quota_limits,
    second_store_limits,
    service_limits,
    storage_limits,
    task_limits,
    workspace_limits,
)
from atoll.records.base import Records
from atoll.records.data_folder import DataFolderLock
from atoll.runtimes.base import Runtime
from atoll.served import listeners_of, object_door, ops_of, served_by, tools_of
from atoll.services.audit.parts import Audit
from atoll.services.authorities import Authorities
from atoll.services.bootstrap_keys import introduce
from atoll.services.charging.charging import Charging
from atoll.services.charging.compute import ComputeCharges
from atoll.services.charging.spending import PricedSpending
from atoll.services.charging.storage import StorageCharges
from atoll.services.daemon.hub import Hubs
from atoll.services.deadline import deadline
from atoll.services.idempotency import Idempotency
from atoll.services.identity.admin_key import AdminKey
from atoll.services.identity.capabilities import Capabilities
from atoll.services.identity.connected import Connected
from atoll.services.identity.external import External
from atoll.services.identity.groups import Groups
from atoll.services.identity.identity import Identity
from atoll.services.identity.memberships import Memberships
from atoll.services.identity.parts import make_user_parts
from atoll.services.identity.principals import Principals
from atoll.services.identity.throttling import NAMES_MAX as LOGINS_COUNTED
from atoll.services.keys import Keys
from atoll.services.ledger.expiring import Expiring
from atoll.services.ledger.ledger import Ledger
from atoll.services.ledger.proving import Proving
from atoll.services.marketplace.marketplace import Marketplace
from atoll.services.model_calls import ModelCalls
from atoll.services.models.blanking import Blanking
from atoll.services.objects.access_keys import AccessKeys
from atoll.services.outbound import Outbound
from atoll.services.owner_key import OwnerKey, prepare
from atoll.services.quotas import Quotas
from atoll.services.rates.counters import Counters
from atoll.services.rates.local_counters import LocalCounters
from atoll.services.rates.shared_counters import SharedCounters
from atoll.services.recovery.copy_journal import CopyJournal
from atoll.services.recovery.second_store import SecondStore
from atoll.services.rewrapping import check_vault
from atoll.services.sandbox_tokens import SandboxTokens
from atoll.services.sandboxes import Sandboxes
from atoll.services.secret_giving import SecretGiving
from atoll.services.secrets import Secrets
from atoll.services.tasks.parts import make_tasks
from atoll.services.webhooks.delivering import Deliveries
from atoll.services.webhooks.owners import Owners
from atoll.services.webhooks.webhooks import Webhooks
from atoll.services.workspaces.parts import make_parts
from atoll.services.workspaces.storage.healing import Healer
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.settings.listen import Address
from atoll.surfaces.computesdk.events import event_answer
from atoll.surfaces.computesdk.parts import ComputeParts
from atoll.surfaces.cors import Cors
from atoll.surfaces.credentials import FOUND
from atoll.surfaces.cut_short import CutShort
from atoll.surfaces.door import Door, is_loopback
from atoll.surfaces.execbox.answers import Error
from atoll.surfaces.execbox.errors import ExecboxDialect
from atoll.surfaces.listeners import TESTBASE, Listener, is_foreign, is_testbase
from atoll.surfaces.once import OnceOnly
from atoll.surfaces.openapi import document
from atoll.surfaces.previews.parts import PreviewParts
from atoll.surfaces.routing import PathRoute, routes
from atoll.surfaces.serving import http_config
from atoll.surfaces.terminal_platform.previews import PreviewRoute, carried_operations
from atoll.surfaces.transport import Http
from atoll.telemetry import spans
from atoll.telemetry.identity_metrics import ProvidersUp
from atoll.telemetry.metrics import Metrics
from atoll.telemetry.standing_metrics import Standing
from atoll.telemetry.trace import Tracing
from atoll.vaults.base import Vault

_log = structlog.get_logger("atoll.app")
TRACES_S = 3.0  # for the last spans to leave
START_S = 120.0  # for a part to get ready; migrations of a large database are the longest


@dataclass(frozen=True, slots=True)
class Beside:
    """An application of its own, with where it is served."""

    name: str
    address: Address
    app: ASGIApp


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
        self.records = records
        self.runtime = runtime
        self.blobs = blobs or open_blob_store(settings)
        self.vault = vault or open_vault(settings)
        self.metrics = Metrics()
        self.traces = open_traces(settings, atoll.__version__, self.metrics.registry)
        self.keys = keys or Keys(
            records,
            cache_s=settings.keys.cache_s,
            use_queue_items=settings.keys.use_queue_items,
            bootstrap=bootstrap_texts(settings),
            plans=quota_limits(settings).plans,
        )
        admin_key = settings.admin.api_key
        self.admin_key = AdminKey(None if admin_key is None else admin_key.get_secret_value())
        self.metrics.count_dropped_uses(lambda: self.keys.dropped_uses)
        self.owner_key: OwnerKey | None = None  # from the start on, where this server may hold one
        self.quotas = Quotas(records, quota_limits(settings), metrics=self.metrics)
        self.ledger = Ledger(records, price_table(settings), metrics=self.metrics.ledger)
        self._expiring = Expiring(self.ledger)
        every_s = settings.ledger.prove_h * 3600
        self._proving = Proving(proof_of(settings), every_s=every_s, metrics=self.metrics.ledger)
        spending = PricedSpending(records, self.ledger)
        parts = make_parts(
            records,
            runtime,
            self.blobs,
            self.vault,
            settings.folder.stamps,
            limits=workspace_limits(settings),
            storage_limits=storage_limits(settings),
            metrics=self.metrics,
            snapshot_files=settings.workspaces.snapshot_files,
            folder=settings.workspaces.folder,
            disks=settings.disks,
            quotas=self.quotas,
        )
        self.workspaces = Workspaces(parts)
        self.second_store, self._healer = self._second_store(second or open_copy_store(settings))
        parts.chunks.healer = self._healer
        self.secrets = Secrets(records, self.vault)
        authorities = Authorities(settings.folder.gateway_seed)
        self.giving = SecretGiving(records, self.secrets, authorities)
        self.agents = make_agents(settings)
        self.installs = make_installs(settings, self.agents)
        self.sandboxes = Sandboxes(
            records,
            runtime,
            settings.data,
            limits=service_limits(settings),
            aliases=dict(settings.images.aliases),
            quotas=self.quotas,
            metrics=self.metrics,
            workspaces=self.workspaces.mounts,
            secrets=self.giving,
            agents=self.installs,
            spending=spending,
        )
        parts.chunks.allowance.spending = spending
        compute = ComputeCharges(
            records, self.ledger, self.sandboxes.running, dry=lambda task, error: self.tasks.dry(task, error)
        )
        self.charging = Charging(compute, StorageCharges(records, self.ledger))
        self.workspaces.join(self.sandboxes)
        self.hubs = Hubs()
        self.marketplace = Marketplace(records, self.sandboxes, self.ledger, marketplace_limits(settings))
        self.model_calls = self._model_calls()
        self._isolated: bool | None = None  # once that is known
        self._unproved = ""  # the isolation rules that did not hold when this server started
        self.dialect = ExecboxDialect()
        self.outbound = Outbound(outbound_limits(settings))
        memberships = Memberships(records, settings.keys.cache_s)
        self.tasks = make_tasks(
            records,
            runtime,
            self.sandboxes,
            self.workspaces,
            self.agents,
            self.installs,
            memberships,
            lambda credential, owner: self.connected.scopes_left(credential, owner),
            self.ledger,
            self.model_calls.check,
            name_file=settings.folder.server_name,
            limits=task_limits(settings),
            metrics=self.metrics,
        )
        self.model_calls.tasks = self.tasks
        self.groups = Groups(records, memberships, Principals(records))
        self.groups.left = self.workspaces.left
        self.capabilities = Capabilities(records, self.keys, self.workspaces.access)
        tries = self._counters(LOGINS_COUNTED)
        self.auth = make_user_parts(records, self.vault, self.capabilities, auth_limits(settings), self._welcome, tries)
        self.external = self._external()
        self.metrics.registry.register(ProvidersUp(self.external.answering))
        self.metrics.registry.register(self._standing())
        self.connected = Connected(
            records, self.auth.standing, self.keys, memberships=memberships, cache_s=settings.keys.cache_s
        )
        self.access_keys = AccessKeys(records, self.vault, self.keys, self.auth.standing, cache_s=settings.keys.cache_s)
        self.sandbox_tokens = SandboxTokens(
            records, self.connected, self.auth.standing, memberships, cache_s=settings.keys.cache_s
        )
        self.computes = ComputeParts(records, self.sandboxes, self.workspaces, self.sandbox_tokens, self.hubs, settings)
        self.identity = Identity(
            self.keys,
            self.access_keys,
            self.sandbox_tokens,
            self.connected,
            self.admin_key,
            self.auth.tokens,
            self.external,
            standing=self.auth.standing,
            memberships=memberships,
        )
        self.door = Door(self.identity, door_limits(settings), self._counters)
        anchor = settings.folder.audit_anchor
        self.audit = Audit(records, self.vault, anchor, memberships.of, self.metrics, audit_limits(settings))
        self.door.requests = self.audit.requests
        per_owner = settings.webhooks.max_per_owner
        self.webhooks = Webhooks(records, self.vault, self.outbound, per_owner=per_owner)
        told, stands = event_answer, Owners(records, Principals(records), self.connected.scopes_left).why_not
        deliveries = delivery_limits(settings)
        self.deliveries = Deliveries(records, self.vault, self.outbound, told, stands, self.metrics, deliveries)
        requests = Idempotency(
            records,
            kept_s=settings.quotas.idempotency_h * 3600,
            answer_bytes_max=settings.quotas.idempotency_answer_bytes,
            owner_bytes_max=settings.quotas.idempotency_owner_bytes,
            shared=settings.database_url.startswith("postgresql"),
        )
        self.showing = PreviewParts(
            records,
            self.sandboxes,
            self.workspaces,
            self.auth.signing_keys,
            issuer=settings.auth.issuer,
            limits=preview_limits(settings),
            carry=carry_limits(settings),
            health_s=settings.previews.health_s,
        )
        self.once = OnceOnly(requests, settings.server.body_bytes)
        self.ops = ops_of(self)
        self.tools = tools_of(self)
        served = [(dialect, self.once.around(operations)) for dialect, operations in served_by(self)]
        self.operations = [one for _, operations in served for one in operations]
        self.routes: list[BaseRoute] = [
            route for dialect, operations in served for route in routes(operations, self.door, dialect)
        ]
        router = Router(self.routes, redirect_slashes=False, default=self._not_found, lifespan=lambda _: self.running())
        rest, pages = self._readable(router, is_testbase), settings.previews.path_pages
        previews = self.showing.door(rest, self.door, self.identity.authenticate, pages)
        self.routes.append(PreviewRoute(self.door, previews))
        router.routes.append(self.routes[-1])  # for what is below its path and names no port
        self.operations += carried_operations()
        traced = Tracing(CutShort(previews, self.dialect), self.metrics, self.traces)
        self._asgi = self.showing.quick(traced, previews, self.door, self.metrics)
        self.listeners = listeners_of(self)
        self.objects = object_door(self, parts)
        api = ApiGateway(self, http_config(self, settings), Http, self.connected, FOUND)
        egress = Egress(
            NameServers(settings.network.resolvers),
            giving=self.giving,
            authorities=authorities,
            ca_file=settings.network.ca_file,
            left=self.sandboxes.egress_quota.left,
            metrics=self.metrics,
        )
        models = model_streams(self.model_calls, lambda app: http_config(app, settings), Http)
        self.gateway = self.sandboxes.gates.servant = Gateway(api, egress, self.connected, models)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._asgi(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start every part in order; at the end, or when one cannot start, close those that did."""
        lock = DataFolderLock(self.settings.folder)
        async with AsyncExitStack() as stack:
            spans.enter(self.traces)
            stack.push_async_callback(self._end_traces)
            await asyncio.to_thread(lock.acquire)
            stack.callback(lock.release)
            _refuse_half_restored(self.settings)
            await _started(stack, "opening the records", self.records.start, self.records.close)
            await _started(stack, "expiring holds", self._expiring.start, self._expiring.close)
            await _started(stack, "proving the ledger", self._proving.start, self._proving.close)
            stack.push_async_callback(self.outbound.close)
            await _started(stack, "looking for identity providers", self.external.start, self.external.close)
            await _started(stack, "preparing the keys", self._prepare_keys, self.keys.close)
            await _started(stack, "starting the runtime", self.runtime.start, self.runtime.close)
            await _started(stack, "opening the blobs", self.blobs.start, self.blobs.close)
            await _started(stack, "opening the vault", self.vault.start, self.vault.close)
            await check_vault(self.records, self.vault)
            await _started(stack, "signing the events", self.audit.start, self.audit.close)
            if self.settings.webhooks.enabled:
                self.deliveries.start()
                stack.push_async_callback(self.deliveries.close)
            await self.workspaces.check_key()
            await _started(stack, "adopting the workspaces", self.workspaces.start, self.workspaces.close)
            stack.push_async_callback(self.model_calls.close)
            stack.push_async_callback(self.gateway.close)
            await _started(stack, "looking at the agents", self.installs.start, self.installs.close)
            stack.push_async_callback(self.charging.close)
            await _started(stack, "adopting the sandboxes", self.sandboxes.start, self.sandboxes.close)
            await _started(stack, "ending what lost its sandbox", self.computes.start, self.computes.close)
            stack.push_async_callback(self.marketplace.close)
            await self.charging.start()
            await _started(stack, "taking up the servers", self.tools.start, self.tools.close)
            await _started(stack, "opening previews", self.showing.start, self.showing.close)
            await _started(stack, "taking up the tasks", self.tasks.start, self.tasks.close)
            stack.push_async_callback(self.once.close)
            if self.second_store is not None and self._healer is not None:
                await _started(stack, "copying to the second store", self.second_store.start, self.second_store.close)
                stack.push_async_callback(self._healer.close)
            proof = asyncio.create_task(self._prove_isolation(), name="isolation")
            stack.push_async_callback(_ended, proof)
            yield

    async def _end_traces(self) -> None:
        """What is left is sent, where the collector takes it at once."""
        spans.enter(None)
        if self.traces is not None:
            await self.traces.close(TRACES_S)

    def _standing(self) -> Standing:
        """What is told of this server as a whole."""
        settings, second = self.settings, self.second_store
        return Standing(
            atoll.__version__,
            isolated=lambda: self._isolated,
            backup_age_s=lambda: None if second is None else second.backup_age_s(),
            disks=dict(zip(("data", "trees", "blobs"), settings.disks, strict=False)),
        )

    def _external(self) -> External:
        """What knows the tokens of the identity providers, of which there may be none."""
        own, users = self.settings.identity, self.auth
        return External(
            identity_providers(self.settings),
            users.users,
            users.standing,
            self.outbound,
            cache_s=self.settings.keys.cache_s,
            refresh_s=own.refresh_s,
            stale_s=own.stale_s,
        )

    def _model_calls(self) -> ModelCalls:
        """Whoever runs tasks sets its `tasks`."""
        settings, providers = self.settings, model_providers(self.settings)
        admin_key = settings.admin.api_key
        own = [one.key for one in providers.all] + list(bootstrap_texts(settings))
        own += [] if admin_key is None else [admin_key.get_secret_value()]
        blanking = Blanking(self.giving.values, own)
        return ModelCalls(
            self.ledger, self.ledger.prices, providers, blanking, model_limits(settings), metrics=self.metrics
        )

    def _second_store(self, second: Blobs | None) -> tuple[SecondStore | None, Healer | None]:
        settings, key_file = self.settings, self.settings.folder.owner_key
        if second is None:
            return None, None
        healer = Healer(self.blobs, second, self.records, self.metrics)
        job = SecondStore(
            self.blobs,
            second,
            self.records,
            self.vault,
            CopyJournal(settings.folder.copied, settings.blobs.copy_url or ""),
            dump_of(settings),
            lambda: key_file.read_text() if key_file.exists() else None,
            scratch=settings.folder.dumps,
            limits=second_store_limits(settings),
            metrics=self.metrics,
            unreadable=healer.lost,
        )
        return job, healer

    def _counters(self, names_max: int) -> Counters:
        """Shared with the other servers where there can be some."""
        if self.settings.rates.shared and self.settings.database_url.startswith("postgresql"):
            return SharedCounters(self.records, names_max)
        return LocalCounters(names_max)

    async def _prove_isolation(self) -> None:
        """Beside the first requests: a server that cannot prove its isolation says so and is not healthy."""
        try:
            report = await self.runtime.prove()
        except AtollError as error:
            self._unproved = error.message
        else:
            failed = [] if report is None or report.isolated else [c.name for c in report.checks if not c.ok]
            self._unproved = ", ".join(failed)
        self._isolated = not self._unproved
        if self._unproved:
            _log.error("isolation not proved", failed=self._unproved, fix="atoll doctor")

    async def _welcome(self, principal: Principal) -> None:
        """What a user has from the first login on."""
        await self.workspaces.create(principal, DEFAULT_NAME)

    @cached_property
    def beside(self) -> list[Beside]:
        """What is served at ports of its own."""
        found = [Beside(one.service.name, address, self._alone(one)) for address, one in self.listeners]
        own = self.settings.objects
        if own.enabled:
            asgi = Tracing(CutShort(self.objects, self.objects.dialect), self.metrics, self.traces)
            found.append(Beside("objects", Address("objects.port", own.host, own.port), asgi))
        return found

    def _alone(self, listener: Listener) -> ASGIApp:
        """A listener with what stands before the routes of the one port too."""
        app = self._readable(listener, lambda _: listener.service is TESTBASE)
        if not listener.service.by_host:
            return Tracing(CutShort(app, listener.dialect), self.metrics, self.traces)
        pages = self.settings.previews.path_pages
        previews = self.showing.door(app, self.door, self.identity.authenticate, pages)
        traced = Tracing(CutShort(previews, listener.dialect), self.metrics, self.traces)
        return self.showing.quick(traced, previews, self.door, self.metrics)

    def _readable(self, app: ASGIApp, testbase: Callable[[str], bool]) -> ASGIApp:
        """With what pages of other origins may read of it."""
        return Cors(app, self.settings.api.cors_origins, testbase, is_foreign)

    def drain(self) -> None:
        """The server stops: what would never end by itself ends now."""
        self.audit.drain()
        self.sandboxes.watches.drain()

    async def isolation(self) -> None:
        if self._unproved:
            raise Unavailable(f"isolation not proved: {self._unproved}")

    async def _prepare_keys(self) -> None:
        await self.keys.start()
        await introduce(self.keys, bootstrap_texts(self.settings))
        hosts = [self.settings.server.host, *(address.host for address, _ in self.listeners)]
        may_mint = all(is_loopback(host) for host in hosts)
        self.owner_key = await prepare(
            self.keys,
            self.settings.folder.owner_key,
            may_mint=may_mint,
            administered=self.admin_key.configured,
        )

    def openapi(self) -> dict[str, Any]:
        """The document of the routes that this application serves."""
        served = [one for route in self.routes if isinstance(route, PathRoute) for one in route.operations]
        return document(served, Error, version=atoll.__version__)

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response = self.dialect.not_found()
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await response(scope, receive, send)


def _refuse_half_restored(settings: Settings) -> None:
    """Conflict where a start would make an empty installation, with keys of its own, of what a restore has left."""
    mark = settings.folder.half_restored
    if mark.exists():
        raise Conflict(
            f"`atoll restore` into {settings.data} was cut short: run it again; or remove {mark} to start with what is "
            "there"
        )


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def create_app(settings: Settings, *, runtime: Runtime | None = None, records: Records | None = None) -> Application:
    """The application that the settings describe; a given runtime or store is used in place of theirs."""
    return Application(settings, records or open_store(settings), runtime or open_runtime(settings))


async def _started(
    stack: AsyncExitStack,
    what: str,
    start: Callable[[], Awaitable[object]],
    close: Callable[[], Awaitable[object]],
) -> None:
    """Start a part and remember to close it; also after a start that failed half-way."""
    stack.push_async_callback(close)
    async with deadline(START_S, what):
        await start()
