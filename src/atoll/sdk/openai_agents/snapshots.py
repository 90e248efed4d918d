"""What a session's snapshot is: an archive, or, where the session has a workspace, the name of one of its snapshots.

The SDK keeps bytes and gives them back. Those that begin with MAGIC name a snapshot that the server keeps.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from atoll.domain.errors import InvalidInput
from atoll.sdk._async.api import AsyncApi
from atoll.sdk._async.workspace import AsyncWorkspace
from atoll.sdk.requests import target_of

MAGIC = b"ATOLL_WORKSPACE_SNAPSHOT_V1\n"
NAMED_BYTES_MAX = 4_096
WORK_S = 600.0
ARCHIVE_BYTES_MAX = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Named:
    """A snapshot on the server."""

    workspace: str
    snapshot: str

    def encoded(self) -> bytes:
        return MAGIC + json.dumps({"workspace": self.workspace, "snapshot": self.snapshot}).encode()


def named(data: bytes) -> Named | None:
    """What the bytes name; None for an archive. InvalidInput."""
    if not data.startswith(MAGIC):
        return None
    try:
        told: Any = json.loads(data[len(MAGIC) : NAMED_BYTES_MAX])
        return Named(str(told["workspace"]), str(told["snapshot"]))
    except (ValueError, KeyError, TypeError):
        raise InvalidInput("these bytes name no snapshot") from None


async def keep(workspace: AsyncWorkspace) -> bytes:
    """Keep the workspace as it is now."""
    kept = await workspace.snapshot()
    return Named(workspace.id, kept.id).encoded()


async def pack(api: AsyncApi, sandbox_id: str, skip: Iterable[Path]) -> bytes:
    """The sandbox's /workspace as tar, made inside."""
    excludes = ",".join(sorted(path.as_posix().removeprefix("./") for path in skip)) or None
    target = target_of("/v1/sandbox", sandbox_id, "persist", excludes=excludes)
    async with await api.stream(target, timeout_s=WORK_S, post=b"") as body:
        return await body.read(ARCHIVE_BYTES_MAX)


async def unpack(api: AsyncApi, sandbox_id: str, archive: bytes) -> None:
    """A tar into the sandbox's /workspace, by the sandbox."""
    await api.upload(target_of("/v1/sandbox", sandbox_id, "hydrate"), archive, timeout_s=WORK_S)


async def archive_of(workspace: AsyncWorkspace, snapshot: str) -> bytes:
    """A snapshot of a workspace as tar: for a session that has another one, or none."""
    packed, plain = io.BytesIO(), io.BytesIO()
    await workspace.export(packed, revision=snapshot)
    packed.seek(0)
    zstandard.ZstdDecompressor().copy_stream(packed, plain)
    return plain.getvalue()
