"""Limits: what the settings say, as the values that the services and the door take; app.py calls it.

What the settings do not name has the default of the value that it fills.
"""

from __future__ import annotations

from ipaddress import ip_network

from atoll.domain.workspace import Quota, Reason
from atoll.services.limits import Limits
from atoll.services.outbound import OutboundLimits
from atoll.services.recovery.second_store import SecondStoreLimits
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.settings import DAY_S, Settings
from atoll.surfaces.door import DoorLimits


def service_limits(settings: Settings) -> Limits:
    """Of the services of sandboxes, processes, files and templates."""
    maxima, sandboxes = settings.limits.maxima, settings.sandboxes
    return Limits(
        cpu_millis_max=maxima.cpu_millis,
        memory_bytes_max=maxima.memory_bytes,
        pids_max=maxima.pids,
        disk_bytes_max=maxima.disk_bytes,
        inodes_max=maxima.inodes,
        timeout_s_max=maxima.timeout_s,
        idle_s_max=maxima.idle_s,
        max_age_s_max=maxima.max_age_s,
        sandboxes_per_key=settings.limits.max_sandboxes_per_key,
        sandboxes_max=settings.limits.max_sandboxes,
        layers_bytes_max=settings.images.layers_bytes,
        output_bytes_max=settings.limits.run_output_bytes,
        stdin_bytes_max=settings.server.body_bytes,
        idle_suspend_s=sandboxes.idle_suspend_s,
        reconcile_every_s=sandboxes.reconcile_s,
        orphan_grace_s=sandboxes.orphan_grace_s,
        ended_kept_s=sandboxes.ended_retention_days * DAY_S,
        key_use_kept_s=settings.keys.use_retention_days * DAY_S,
    )


def workspace_limits(settings: Settings) -> WorkspaceLimits:
    """Of the workspaces service."""
    own = settings.workspaces
    asked = {
        Reason.PROCESS: own.after_process,
        Reason.STOP: own.on_stop,
        Reason.SUSPEND: own.on_suspend,
        Reason.DAILY: own.daily,
    }
    return WorkspaceLimits(
        quota=Quota(own.quota_bytes, own.quota_inodes),
        quota_max=Quota(own.max_quota_bytes, own.max_quota_inodes),
        workspaces_per_key=own.max_per_key,
        import_bytes=own.import_bytes,
        import_entries=own.import_entries,
        import_s=own.import_s,
        automatic=frozenset(reason for reason, taken in asked.items() if taken),
        revisions_kept=own.revisions_kept,
        snapshots_kept=own.snapshots_kept,
        collect_every_s=own.collect_every_s,
    )


def storage_limits(settings: Settings) -> StorageLimits:
    """Of the store of chunks."""
    own = settings.workspaces
    return StorageLimits(
        grace_s=own.collect_grace_s,
        stored_bytes_max=own.max_stored_bytes,
        free_bytes_min=own.min_free_bytes,
        page_cache_bytes=own.chunk_cache_bytes,
    )


def second_store_limits(settings: Settings) -> SecondStoreLimits:
    """Of the job that keeps the second store."""
    own = settings.blobs
    return SecondStoreLimits(
        every_s=own.copy_every_s,
        at_once=own.copy_concurrency,
        grace_s=settings.workspaces.collect_grace_s,
        backup_every_s=own.copy_backup_every_s,
        backups_kept=own.copy_backups_kept,
    )


def outbound_limits(settings: Settings) -> OutboundLimits:
    """Of the server's calls to URLs of others."""
    own = settings.outbound
    return OutboundLimits(own.timeout_s, own.answer_bytes, own.at_once, tuple(map(ip_network, own.networks)))


def door_limits(settings: Settings) -> DoorLimits:
    """Of the door that every request comes through."""
    return DoorLimits(
        **settings.rates.model_dump(),
        sockets_per_key=settings.limits.ws_per_key,
        trusted_proxies=tuple(ip_network(proxy, strict=False) for proxy in settings.server.trusted_proxies),
    )
