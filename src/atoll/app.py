"""The composition root: settings -> adapters -> services -> surfaces -> one ASGI application.

The only module that names concrete adapters. `serve` runs what it makes; tests make it with fakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

import atoll
from atoll.blobs.base import Blobs
from atoll.blobs.opening import StoreAccess, open_blobs
from atoll.domain.errors import AtollError, Conflict, InvalidInput, Unavailable
from atoll.domain.principal import Principal
from atoll.domain.workspace import DEFAULT_NAME
from atoll.gateway.api import ApiGateway
from atoll.gateway.egress import Egress
from atoll.gateway.gateway import Gateway
from atoll.gateway.resolver import NameServers
from atoll.limits import (
    audit_limits,
    auth_limits,
    bootstrap_texts,
    delivery_limits,
    door_limits,
    identity_providers,
    outbound_limits,
    quota_limits,
    second_store_limits,
    service_limits,
    storage_limits,
    workspace_limits,
)
from atoll.records.base import Records
from atoll.records.data_folder import DataFolderLock
from atoll.runtimes.base import Runtime
from atoll.services.account_keys import AccountKeys
from atoll.services.accounts import Accounts
from atoll.services.audit.parts import Audit
from atoll.services.authorities import Authorities
from atoll.services.bootstrap_keys import introduce
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
from atoll.services.key_admin import KeyAdmin
from atoll.services.keys import Keys
from atoll.services.outbound import Outbound
from atoll.services.owner_key import OwnerKey, prepare
from atoll.services.quota_overrides import QuotaOverrides
from atoll.services.quotas import Quotas
from atoll.services.rates.counters import Counters
from atoll.services.rates.local_counters import LocalCounters
from atoll.services.rates.shared_counters import SharedCounters
from atoll.services.recovery.backup import Dump
from atoll.services.recovery.copy_journal import CopyJournal
from atoll.services.recovery.second_store import SecondStore
from atoll.services.rewrapping import check_vault
from atoll.services.sandboxes import Sandboxes
from atoll.services.secret_giving import SecretGiving
from atoll.services.secrets import Secrets
from atoll.services.signup import Signup
from atoll.services.webhooks.delivering import Deliveries
from atoll.services.webhooks.owners import Owners
from atoll.services.webhooks.webhooks import Webhooks
from atoll.services.workspaces.parts import make_parts
from atoll.services.workspaces.storage.healing import Healer
from atoll.services.workspaces.storage.packs import pack_key
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.settings.vault import TransitSettings
from atoll.surfaces.computesdk.auth import operations as auth_operations
from atoll.surfaces.computesdk.capabilities import operations as capability_operations
from atoll.surfaces.computesdk.errors import ComputeDialect
from atoll.surfaces.computesdk.events import event_answer
from atoll.surfaces.computesdk.events import operations as event_operations
from atoll.surfaces.computesdk.groups import operations as group_operations
from atoll.surfaces.computesdk.quotas import operations as quota_operations
from atoll.surfaces.computesdk.routes import operations as compute_operations
from atoll.surfaces.computesdk.secrets import operations as secret_operations
from atoll.surfaces.computesdk.user_keys import operations as user_key_operations
from atoll.surfaces.computesdk.users import operations as user_operations
from atoll.surfaces.computesdk.webhooks import operations as webhook_operations
from atoll.surfaces.credentials import FOUND
from atoll.surfaces.cut_short import CutShort
from atoll.surfaces.door import Door, is_loopback
from atoll.surfaces.execbox.account_routes import account_operations, signup_operations
from atoll.surfaces.execbox.answers import Error
from atoll.surfaces.execbox.errors import ExecboxDialect
from atoll.surfaces.execbox.routes import operations as execbox_operations
from atoll.surfaces.once import OnceOnly
from atoll.surfaces.openapi import document
from atoll.surfaces.operation import Operation
from atoll.surfaces.ops.health import Health, Probe
from atoll.surfaces.ops.pages import Pages
from atoll.surfaces.ops.routes import operations as ops_operations
from atoll.surfaces.routing import Dialect, PathRoute, routes
from atoll.surfaces.serving import http_config
from atoll.surfaces.terminal_platform.errors import TerminalDialect
from atoll.surfaces.terminal_platform.routes import operations as terminal_operations
from atoll.surfaces.testbase.errors import AdminDialect
from atoll.surfaces.testbase.routes import admin_operations
from atoll.surfaces.transport import Http
from atoll.surfaces.workspaces.routes import operations as workspace_operations
from atoll.telemetry.identity_metrics import ProvidersUp
from atoll.telemetry.metrics import Metrics
from atoll.telemetry.trace import Tracing
from atoll.vaults.base import Vault
from atoll.vaults.local_key import LocalKey
from atoll.vaults.transit import Transit, TransitAccess
from atoll.vaults.workos import Workos

_log = structlog.get_logger("atoll.app")
NOBODY = "sess_000000000000"  # whether the runtime answers is found out by asking for a sandbox that cannot be
START_S = 120.0  # for a part to get ready; migrations of a large database are the longest


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
        self.keys = keys or Keys(
            records,
            cache_s=settings.keys.cache_s,
            use_queue_items=settings.keys.use_queue_items,
            bootstrap=bootstrap_texts(settings),
        )
        admin_key = settings.admin.api_key
        self.admin_key = AdminKey(None if admin_key is None else admin_key.get_secret_value())
        self.metrics.count_dropped_uses(lambda: self.keys.dropped_uses)
        self.owner_key: OwnerKey | None = None  # from the start on, where this server may hold one
        self.quotas = Quotas(records, quota_limits(settings), metrics=self.metrics)
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
        )
        self.workspaces.join(self.sandboxes)
        self._unproved = ""  # the isolation rules that did not hold when this server started
        self._dialect = ExecboxDialect()
        self.outbound = Outbound(outbound_limits(settings))
        memberships = Memberships(records, settings.keys.cache_s)
        self.groups = Groups(records, memberships, Principals(records))
        self.groups.left = self.workspaces.left
        self.capabilities = Capabilities(records, self.keys, self.workspaces.access)
        self.auth = make_user_parts(records, self.vault, self.keys, auth_limits(settings), self._welcome)
        self.external = self._external()
        self.metrics.registry.register(ProvidersUp(self.external.answering))
        self.connected = Connected(records, self.auth.standing, cache_s=settings.keys.cache_s)
        self.identity = Identity(
            self.keys,
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
        told, stands = event_answer, Owners(records).why_not
        deliveries = delivery_limits(settings)
        self.deliveries = Deliveries(records, self.vault, self.outbound, told, stands, self.metrics, deliveries)
        requests = Idempotency(
            records,
            kept_s=settings.quotas.idempotency_h * 3600,
            answer_bytes_max=settings.quotas.idempotency_answer_bytes,
            shared=settings.database_url.startswith("postgresql"),
        )
        self.once = OnceOnly(requests, settings.server.body_bytes)
        served = [(dialect, self.once.around(operations)) for dialect, operations in self._operations()]
        self.operations = [one for _, operations in served for one in operations]
        self.routes: list[BaseRoute] = [
            route for dialect, operations in served for route in routes(operations, self.door, dialect)
        ]
        router = Router(self.routes, redirect_slashes=False, default=self._not_found, lifespan=lambda _: self.running())
        self._asgi = Tracing(CutShort(router, self._dialect), self.metrics)
        api = ApiGateway(self, http_config(self, settings), Http, self.connected, FOUND)
        egress = Egress(
            NameServers(settings.network.resolvers),
            giving=self.giving,
            authorities=authorities,
            ca_file=settings.network.ca_file,
        )
        self.gateway = self.sandboxes.gates.servant = Gateway(api, egress, self.connected)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._asgi(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start every part in order; at the end, or when one cannot start, close those that did."""
        lock = DataFolderLock(self.settings.folder)
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(lock.acquire)
            stack.callback(lock.release)
            _refuse_half_restored(self.settings)
            await _started(stack, "opening the records", self.records.start, self.records.close)
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
            stack.push_async_callback(self.gateway.close)
            await _started(stack, "adopting the sandboxes", self.sandboxes.start, self.sandboxes.close)
            stack.push_async_callback(self.once.close)
            if self.second_store is not None and self._healer is not None:
                await _started(stack, "copying to the second store", self.second_store.start, self.second_store.close)
                stack.push_async_callback(self._healer.close)
            proof = asyncio.create_task(self._prove_isolation(), name="isolation")
            stack.push_async_callback(_ended, proof)
            yield

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
        if self._unproved:
            _log.error("isolation not proved", failed=self._unproved, fix="atoll doctor")

    async def _welcome(self, principal: Principal) -> None:
        """What a user has from the first login on."""
        await self.workspaces.create(principal, DEFAULT_NAME)

    def drain(self) -> None:
        """The server stops: what would never end by itself ends now."""
        self.audit.drain()

    async def _isolation(self) -> None:
        if self._unproved:
            raise Unavailable(f"isolation not proved: {self._unproved}")

    async def _prepare_keys(self) -> None:
        await self.keys.start()
        await introduce(self.keys, bootstrap_texts(self.settings))
        may_mint = is_loopback(self.settings.server.host)
        self.owner_key = await prepare(
            self.keys,
            self.settings.folder.owner_key,
            may_mint=may_mint,
            administered=self.admin_key.configured,
        )

    def _operations(self) -> list[tuple[Dialect, list[Operation]]]:
        """What is served, by how it speaks of errors."""
        probes: dict[str, Probe] = {
            "records": lambda: self.records.ping(),
            "runtime": lambda: self.runtime.find(NOBODY),
            "blobs": lambda: self.blobs.ping(),
            "isolation": self._isolation,
        }
        told = {} if self.second_store is None else {"second_store": self.second_store.describe}
        health = Health(probes, self.metrics, atoll.__version__, told)
        metrics = self.metrics if self.settings.api.metrics else None
        key_admin = KeyAdmin(self.keys, self.records, self.admin_key)
        pages = Pages(self.openapi) if self.settings.api.docs else None
        return [
            (self._dialect, execbox_operations(self.sandboxes, self.settings)),
            (self._dialect, workspace_operations(self.workspaces, self.settings)),
            (TerminalDialect(), terminal_operations(self.workspaces, self.settings)),
            (ComputeDialect(), compute_operations(self.workspaces, self.settings)),
            (ComputeDialect(), event_operations(self.audit.events)),
            (ComputeDialect(), webhook_operations(self.webhooks, self.settings)),
            (ComputeDialect(), auth_operations(self.auth, self.settings)),
            (ComputeDialect(), user_key_operations(self.auth, self.settings)),
            (ComputeDialect(), user_operations(self.auth, self.settings)),
            (
                ComputeDialect(),
                quota_operations(self.quotas, QuotaOverrides(self.records, self.quotas), self.settings),
            ),
            (ComputeDialect(), group_operations(self.groups, self.settings)),
            (ComputeDialect(), capability_operations(self.capabilities, self.settings)),
            (ComputeDialect(), secret_operations(self.secrets, self.settings)),
            (AdminDialect(configured=self.admin_key.configured), admin_operations(key_admin, self.settings)),
            (self._dialect, self._account_operations()),
            (self._dialect, ops_operations(health, metrics, pages)),
        ]

    def _account_operations(self) -> list[Operation]:
        """Of accounts, and for strangers where the settings say so."""
        accounts = Accounts(self.records, self.quotas)
        keys = AccountKeys(self.records, self.keys, self.capabilities, self.quotas)
        found = account_operations(accounts, keys, self.settings)
        own = self.settings.accounts
        if not own.waitlist:
            return found
        signup = Signup(self.records, keys_max=own.waitlist_max, requests_max=own.requests_max)
        return [*found, *signup_operations(signup, self.settings)]

    def openapi(self) -> dict[str, Any]:
        """The document of the routes that this application serves."""
        served = [one for route in self.routes if isinstance(route, PathRoute) for one in route.operations]
        return document(served, Error, version=atoll.__version__)

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response = self._dialect.not_found()
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


def open_store(settings: Settings) -> Records:
    """The store of the settings, not started."""
    from atoll.records.sql import open_records

    database = settings.database
    return open_records(settings.database_url, connections=database.pool_connections, timeout_s=database.timeout_s)


def open_runtime(settings: Settings) -> Runtime:
    """The runtime of the settings, not started."""
    if settings.runtime == "fake":
        from atoll.testing.fake_runtime import FakeRuntime

        return FakeRuntime()
    from atoll.runtimes.local.runtime import LocalRuntime

    defaults = settings.limits.defaults
    return LocalRuntime(
        settings.data,
        resolvers=settings.network.resolvers,
        network_bytes_per_s=settings.network.bytes_per_s,
        ring_bytes=settings.limits.output_ring_bytes,
        spares=settings.sandboxes.spares,
        spare_disk_bytes=defaults.disk_bytes,
        spare_inodes=defaults.inodes,
        trees=settings.trees_folder,
        keeper_idle_s=settings.workspaces.keeper_idle_s,
    )


def open_vault(settings: Settings, kind: str | None = None) -> Vault:
    """The vault of the settings, or the one of that kind, not started. InvalidInput where they do not say enough."""
    own, kind = settings.vault, kind or settings.vault.kind
    if kind == Transit.name:
        return Transit(_transit_access(own.transit))
    if kind == Workos.name:
        if own.workos.api_key is None:
            raise InvalidInput("the vault workos needs vault.workos.api_key", field="vault.workos.api_key")
        key, context = own.workos.api_key.get_secret_value(), own.workos.context
        return Workos(own.workos.url, key, context, timeout_s=own.workos.timeout_s)
    if kind == LocalKey.name:
        return LocalKey(settings.master_key_file)
    raise InvalidInput(f"there is no vault of the kind {kind!r}", field="vault.kind")


def _transit_access(own: TransitSettings) -> TransitAccess:
    if own.url is None:
        raise InvalidInput("the vault transit needs vault.transit.url", field="vault.transit.url")
    return TransitAccess(
        url=own.url,
        mount=own.mount,
        key=own.key,
        namespace=own.namespace,
        token=own.token.get_secret_value() if own.token else None,
        token_file=own.token_file,
        role_id=own.role_id,
        secret_id=own.secret_id.get_secret_value() if own.secret_id else None,
        secret_id_file=own.secret_id_file,
        approle_mount=own.approle_mount,
        ca_file=own.ca_file,
        timeout_s=own.timeout_s,
    )


def open_blob_store(settings: Settings) -> Blobs:
    """The store of blobs of the settings, not started."""
    return open_blobs(settings.blobs_url, _store_access(settings))


def dump_of(settings: Settings) -> Dump:
    """What writes a dump of the records of the settings for a backup."""

    async def dump(file: Path) -> dict[str, int]:
        from atoll.records.dump import dump_records, packs_in

        await dump_records(settings.database_url, file)
        packs = await asyncio.to_thread(packs_in, file)
        return {pack_key(lineage, pack): size for lineage, pack, size in packs}

    return dump


def open_copy_store(settings: Settings, url: str | None = None, *, read_only: bool = False) -> Blobs | None:
    """The second store, at `url` or as the settings have it; None where there is none."""
    own = settings.blobs
    url = url or own.copy_url
    if url is None:
        return None
    secret = own.copy_secret_key or own.secret_key
    return open_blobs(
        url,
        replace(
            _store_access(settings),
            endpoint=own.copy_endpoint,
            region=own.copy_region or own.region,
            access_key=own.copy_access_key or own.access_key,
            secret_key=secret.get_secret_value() if secret else None,
        ),
        read_only=read_only,
    )


def _store_access(settings: Settings) -> StoreAccess:
    """How the store of blobs is reached."""
    own = settings.blobs
    return StoreAccess(
        endpoint=own.endpoint,
        region=own.region,
        path_style=own.path_style,
        access_key=own.access_key,
        secret_key=own.secret_key.get_secret_value() if own.secret_key else None,
        timeout_s=own.timeout_s,
        retries=own.retries,
        backoff_s=own.backoff_s,
        backoff_max_s=own.backoff_max_s,
        concurrency=own.concurrency,
    )


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
