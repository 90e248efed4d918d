"""The adapters that the settings name: the store, the runtime, the vault, the stores of blobs, none of them started.

The composition root and the command line open them here; no other module names a concrete adapter. Each is imported
when it is opened: a command would wait for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.agents.base import Agent
from atoll.blobs.base import Blobs
from atoll.blobs.opening import StoreAccess, open_blobs
from atoll.domain.errors import InvalidInput
from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.services.ledger.proving import Proof
from atoll.services.recovery.backup import Dump
from atoll.services.workspaces.storage.packs import pack_key
from atoll.settings import Settings
from atoll.settings.vault import TransitSettings
from atoll.vaults.base import Vault

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from atoll.services.agents.installs import AgentInstalls
    from atoll.telemetry.otlp import Traces


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


def make_agents(settings: Settings) -> dict[str, Agent]:
    """Who does tasks, by name."""
    from atoll.agents.claude_code import ClaudeCode
    from atoll.agents.codex import Codex
    from atoll.agents.command import Command

    own = settings.agents
    agents: tuple[Agent, ...] = (Codex(own.codex.model), ClaudeCode(own.claude_code.model), Command())
    return {agent.name: agent for agent in agents}


def make_installs(settings: Settings, agents: dict[str, Agent] | None = None) -> AgentInstalls:
    """The store of agents' programs, as the settings want them."""
    from atoll.services.agents.installed import Wanted
    from atoll.services.agents.installs import AgentInstalls, InstallLimits

    own, wanted = settings.agents, dict[str, Wanted]()
    for name, agent in (agents or make_agents(settings)).items():
        said = {"codex": own.codex, "claude_code": own.claude_code}.get(name)
        if agent.package is None or said is None:
            continue
        package, hashes = agent.package, agent.package.hashes
        if said.version not in (None, package.version):
            package, hashes = replace(package, version=said.version), ()
        wanted[name] = Wanted(package, (said.hash,) if said.hash else hashes, said.folder)
    return AgentInstalls(settings.agents_folder, wanted, InstallLimits(own.install_s, own.install_bytes))


def open_vault(settings: Settings, kind: str | None = None) -> Vault:
    """The vault of the settings, or the one of that kind, not started. InvalidInput where they do not say enough."""
    own, kind = settings.vault, kind or settings.vault.kind
    if kind == "transit":
        return _open_transit(own.transit)
    if kind == "workos":
        from atoll.vaults.workos import Workos

        if own.workos.api_key is None:
            raise InvalidInput("the vault workos needs vault.workos.api_key", field="vault.workos.api_key")
        key, context = own.workos.api_key.get_secret_value(), own.workos.context
        return Workos(own.workos.url, key, context, timeout_s=own.workos.timeout_s)
    if kind == "local":
        from atoll.vaults.local_key import LocalKey

        return LocalKey(settings.master_key_file)
    raise InvalidInput(f"there is no vault of the kind {kind!r}", field="vault.kind")


def _open_transit(own: TransitSettings) -> Vault:
    from atoll.vaults.transit import Transit, TransitAccess

    if own.url is None:
        raise InvalidInput("the vault transit needs vault.transit.url", field="vault.transit.url")
    access = TransitAccess(
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
    return Transit(access)


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


def proof_of(settings: Settings) -> Callable[[], Awaitable[Proof]]:
    """What proves the ledger of the settings' records."""

    async def proof() -> Proof:
        from atoll.records.ledger_proof import prove

        return await prove(settings.database_url)

    return proof


def open_traces(settings: Settings, version: str, registry: CollectorRegistry) -> Traces | None:
    """Where spans go, if anywhere. InvalidInput without the libraries for it."""
    own = settings.traces
    if not own.enabled:
        return None
    from atoll.telemetry.otlp import Traces

    pairs = "" if own.headers is None else own.headers.get_secret_value()
    headers = (part.partition("=") for part in pairs.split(",") if part.strip())
    return Traces(
        own.endpoint,
        service_name=own.service_name,
        version=version,
        sample_ratio=own.sample_ratio,
        headers={name.strip(): value.strip() for name, _, value in headers},
        trusted=tuple(ip_network(part, strict=False) for part in own.trusted),
        queue_spans=own.queue_spans,
        timeout_s=own.timeout_s,
        registry=registry,
    )


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
