"""Objects of workspaces to rows and back; the SQL of workspaces calls it for every statement, as `rows.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from atoll.domain.workspace import (
    Lineage,
    Pack,
    Permission,
    Quota,
    Reason,
    Revision,
    RevisionState,
    Share,
    Snapshot,
    StoredChunk,
    Workspace,
)

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

Row = Mapping[Any, Any]  # as SQLAlchemy types its own

_LINEAGE_FIELDS = tuple(Lineage.__dataclass_fields__)
_WORKSPACE_OTHERS = ("tags", "quota")
_WORKSPACE_FIELDS = tuple(name for name in Workspace.__dataclass_fields__ if name not in _WORKSPACE_OTHERS)
_REVISION_FIELDS = tuple(Revision.__dataclass_fields__)
_SNAPSHOT_FIELDS = tuple(Snapshot.__dataclass_fields__)
_SHARE_FIELDS = tuple(Share.__dataclass_fields__)
_PACK_FIELDS = tuple(Pack.__dataclass_fields__)


def lineage_row(lineage: Lineage) -> dict[str, Any]:
    return _fields(lineage, _LINEAGE_FIELDS)


def lineage_of(row: Row) -> Lineage:
    return Lineage(**row)


def workspace_row(workspace: Workspace) -> dict[str, Any]:
    return _fields(workspace, _WORKSPACE_FIELDS) | {
        "tags": _encode(workspace.tags),
        "quota_bytes": workspace.quota.bytes,
        "quota_inodes": workspace.quota.inodes,
    }


def workspace_of(row: Row) -> Workspace:
    return Workspace(
        tags=tuple(json.loads(row["tags"])),
        quota=Quota(row["quota_bytes"], row["quota_inodes"]),
        **{name: row[name] for name in _WORKSPACE_FIELDS},
    )


def revision_row(revision: Revision) -> dict[str, Any]:
    return _fields(revision, _REVISION_FIELDS) | {"reason": revision.reason.value, "state": revision.state.value}


def revision_of(row: Row) -> Revision:
    plain = {name: value for name, value in row.items() if name not in ("reason", "state")}
    return Revision(reason=Reason(row["reason"]), state=RevisionState(row["state"]), **plain)


def snapshot_row(snapshot: Snapshot) -> dict[str, Any]:
    return _fields(snapshot, _SNAPSHOT_FIELDS)


def snapshot_of(row: Row) -> Snapshot:
    return Snapshot(**row)


def share_row(share: Share) -> dict[str, Any]:
    return _fields(share, _SHARE_FIELDS) | {"permission": share.permission.value}


def share_of(row: Row) -> Share:
    plain = {name: value for name, value in row.items() if name != "permission"}
    return Share(permission=Permission(row["permission"]), **plain)


def pack_row(pack: Pack) -> dict[str, Any]:
    return _fields(pack, _PACK_FIELDS)


def pack_of(row: Row) -> Pack:
    return Pack(**row)


def chunk_rows(pack: Pack, chunks: Sequence[StoredChunk]) -> Iterator[dict[str, Any]]:
    """Sorted by id, so that two servers that store the same chunks do not wait for each other in a circle."""
    for chunk in sorted(chunks, key=lambda chunk: chunk.id):
        yield {
            "lineage": pack.lineage,
            "id": chunk.id,
            "pack": pack.id,
            "offset": chunk.offset,
            "stored_bytes": chunk.stored_bytes,
            "bytes": chunk.bytes,
        }


def _fields(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}
