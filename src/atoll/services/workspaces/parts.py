"""Parts: everything that the workspaces service is made of, put together over the plug points; app.py calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.blobs.base import Blobs
from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.services.background import Background
from atoll.services.clock import Clock, utc_now
from atoll.services.locks import Locks
from atoll.services.quotas import Quotas
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.adding import Adding
from atoll.services.workspaces.archives.folder_copies import FolderCopies
from atoll.services.workspaces.archives.snapshot_files import SnapshotFiles
from atoll.services.workspaces.archives.tree_archives import Archives, TreeArchives
from atoll.services.workspaces.copying import Copying
from atoll.services.workspaces.forks import Forks
from atoll.services.workspaces.history import History
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.merging import Merging
from atoll.services.workspaces.mounted import Mounted
from atoll.services.workspaces.mounts import Mounts
from atoll.services.workspaces.old_trees import OldTrees
from atoll.services.workspaces.possession import Possession
from atoll.services.workspaces.refs import Refs
from atoll.services.workspaces.restoring import Restoring
from atoll.services.workspaces.retention import Retention
from atoll.services.workspaces.revising import Revising
from atoll.services.workspaces.sandbox_configs import SandboxConfigs
from atoll.services.workspaces.sharing import Sharing
from atoll.services.workspaces.shredding import Shredding
from atoll.services.workspaces.snapshots import Snapshots
from atoll.services.workspaces.storage.allowance import Allowance
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.collecting import Collector
from atoll.services.workspaces.storage.free_space import FreeSpace
from atoll.services.workspaces.storage.keys import LineageKeys
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.services.workspaces.storage.verifying import Verifier
from atoll.services.workspaces.sync import Sync
from atoll.services.workspaces.trees.stamps import Stamps
from atoll.services.workspaces.trees.working_trees import WorkingTrees
from atoll.services.workspaces.unrecorded import Unrecorded
from atoll.services.workspaces.upkeep import Upkeep
from atoll.services.workspaces.viewing import Viewing
from atoll.telemetry.metrics import Metrics
from atoll.vaults.base import Vault


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts, each made once."""

    records: Records
    limits: WorkspaceLimits
    access: WorkspaceAccess
    adding: Adding
    archives: Archives
    background: Background
    chunks: ChunkStore
    collector: Collector
    copying: Copying
    files: SnapshotFiles | None
    folders: FolderCopies | None
    forks: Forks
    history: History
    keys: LineageKeys
    locks: Locks
    manifests: Manifests
    merging: Merging
    mounted: Mounted
    mounts: Mounts
    old_trees: OldTrees
    refs: Refs
    restoring: Restoring
    retention: Retention
    revising: Revising
    sandbox_configs: SandboxConfigs
    sharing: Sharing
    shredding: Shredding
    snapshots: Snapshots
    sync: Sync
    trees: WorkingTrees
    unrecorded: Unrecorded
    upkeep: Upkeep
    verifier: Verifier
    viewing: Viewing


def make_parts(
    records: Records,
    runtime: Runtime,
    blobs: Blobs,
    vault: Vault,
    stamps_folder: Path,
    *,
    limits: WorkspaceLimits | None = None,
    storage_limits: StorageLimits | None = None,
    clock: Clock = utc_now,
    metrics: Metrics | None = None,
    snapshot_files: Path | None = None,
    folder: Path | None = None,
    disks: Sequence[Path] = (),
    quotas: Quotas | None = None,
) -> Parts:
    """The parts over plug points that are started before and closed after them. `stamps_folder` is a cache of ours,
    and the place of the marks of trees that somebody may have changed; `snapshot_files` gets a copy of each snapshot,
    `folder` one of each workspace's files. `disks` are folders on the file systems that all others write to.
    """
    limits, metrics = limits or WorkspaceLimits(), metrics or Metrics()
    access = WorkspaceAccess(records, clock)
    locks, mounted, background, refs = Locks(), Mounted(), Background(), Refs(records)
    keys = LineageKeys(records, vault, clock)
    storage_limits = storage_limits or StorageLimits()
    allowance = Allowance(records, storage_limits, FreeSpace(disks, storage_limits.free_bytes_min), quotas)
    # A full disk of copies stops the copies alone.
    copies_disk = FreeSpace([] if folder is None else [folder], storage_limits.free_bytes_min)
    files_disk = FreeSpace([] if snapshot_files is None else [snapshot_files], storage_limits.free_bytes_min)
    chunks = ChunkStore(blobs, records, keys, storage_limits, clock, allowance)
    manifests = Manifests(chunks)
    unrecorded = Unrecorded(records, access)
    viewing = Viewing(records, mounted, allowance, unrecorded)
    stamps = Stamps(stamps_folder, limits.stamps_cached_max)
    trees = WorkingTrees(runtime, records, access, chunks, manifests, stamps, limits)
    revising = Revising(records, access, chunks, manifests, trees, mounted, locks, background, unrecorded, limits)
    copying = Copying(chunks, manifests)
    old_trees = OldTrees(records, access, trees, revising, mounted, locks, background, limits)
    restoring = Restoring(
        records,
        runtime,
        access,
        refs,
        manifests,
        copying,
        trees,
        old_trees,
        revising,
        viewing,
        mounted,
        locks,
        limits,
        metrics,
    )
    tree_archives = TreeArchives(chunks, manifests)
    files = folders = None
    if snapshot_files is not None:
        files = SnapshotFiles(snapshot_files, records, tree_archives, limits.tree_s, files_disk)
    if folder is not None:
        folders = FolderCopies(folder, records, manifests, chunks, limits.tree_s, copies_disk)
        access.changed = folders.changed
    shredding = Shredding(records, access, keys, files)
    snapshots = Snapshots(
        records,
        access,
        refs,
        keys,
        copying,
        revising,
        shredding,
        locks,
        restoring.wanted.keys(),
        files,
        limits,
        metrics,
    )
    mounts = Mounts(
        records, runtime, access, trees, revising, restoring, old_trees, mounted, locks, background, keys, limits
    )
    retention = Retention(records, access, limits)
    collector = Collector(chunks, manifests, limits)
    adding = Adding(records, access, limits)
    sandbox_configs = SandboxConfigs(records, keys)
    possession = Possession(records, chunks, manifests)
    return Parts(
        records=records,
        limits=limits,
        access=access,
        adding=adding,
        archives=Archives(
            runtime, access, refs, chunks, manifests, tree_archives, trees, revising, restoring, viewing, locks, limits
        ),
        background=background,
        chunks=chunks,
        collector=collector,
        copying=copying,
        files=files,
        folders=folders,
        forks=Forks(records, access, refs, keys, copying, revising, adding, viewing, locks),
        history=History(records, access, refs, chunks, manifests, viewing, limits),
        keys=keys,
        locks=locks,
        manifests=manifests,
        merging=Merging(records, access, refs, manifests, copying, revising, restoring, viewing, locks, limits),
        mounted=mounted,
        mounts=mounts,
        old_trees=old_trees,
        refs=refs,
        restoring=restoring,
        retention=retention,
        revising=revising,
        sandbox_configs=sandbox_configs,
        sharing=Sharing(records, access),
        shredding=shredding,
        snapshots=snapshots,
        sync=Sync(records, access, refs, chunks, manifests, possession, revising, restoring, viewing, locks, limits),
        trees=trees,
        unrecorded=unrecorded,
        upkeep=Upkeep(
            records,
            runtime,
            access,
            trees,
            revising,
            restoring,
            old_trees,
            snapshots,
            shredding,
            retention,
            collector,
            sandbox_configs,
            mounts,
            mounted,
            locks,
            limits,
        ),
        verifier=Verifier(chunks, manifests, locks),
        viewing=viewing,
    )
