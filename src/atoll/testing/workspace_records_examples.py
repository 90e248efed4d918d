"""What the conformance suites of workspaces' records are made of: two stores, and small objects to put into them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain.event import Event
from atoll.domain.ids import new_id, new_workspace_id
from atoll.domain.tree import chunk_id
from atoll.domain.workspace import (
    Lineage,
    Pack,
    Reason,
    Revision,
    Snapshot,
    StoredChunk,
    Workspace,
)
from atoll.records.base import Records

T0 = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
TREE = chunk_id(b"a tree").hex()
KEY = bytes(range(256))


def lineage(age_s: float = 0, owner: str = "key_0") -> Lineage:
    """One made `age_s` before T0."""
    return Lineage(new_id("lin"), owner, "local", KEY, T0 - timedelta(seconds=age_s))


def workspace(of: Lineage, name: str = "code", owner: str = "key_0", **changes: Any) -> Workspace:
    made = Workspace(new_workspace_id(), owner, name, of.id, new_id("rev"), T0, T0)
    return replace(made, **changes)


def revision(of: Workspace, number: int = 1, **changes: Any) -> Revision:
    """One of a workspace; its first is the head that `workspace` has named."""
    name = of.head if number == 1 else new_id("rev")
    made = Revision(name, of.id, number, of.lineage, TREE, None, Reason.ASKED, "key_0", T0, 1, 0)
    return replace(made, **changes)


def snapshot(of: Revision, snapshot_id: str = "snap_2026_03_01_120000", **changes: Any) -> Snapshot:
    made = Snapshot(snapshot_id, of.workspace, "key_0", of.id, of.lineage, of.tree, T0)
    return replace(made, **changes)


def event(target: str = "t", action: str = "workspace.changed") -> Event:
    return Event(action, target, "key_0", actor="key_0", at=T0)


def pack(of: Lineage, age_s: float = 0) -> Pack:
    return Pack(new_id("pack"), of.id, 1000, T0 - timedelta(seconds=age_s))


def chunks(of: Pack, *contents: bytes) -> list[StoredChunk]:
    return [StoredChunk(chunk_id(data), of.id, 100 * n, 50 + n, len(data)) for n, data in enumerate(contents)]


async def made(records: Records, name: str = "code", owner: str = "key_0", **changes: Any) -> Workspace:
    """A stored workspace with its first revision and a lineage of its own."""
    own = lineage(owner=owner)
    new = workspace(own, name, owner, **changes)
    await records.add_workspace(new, revision(new), own, event(new.id, "workspace.created"))
    return new


async def revised(records: Records, of: Workspace, times: int) -> tuple[Workspace, list[Revision]]:
    """The workspace after so many more revisions, and those, oldest first."""
    added: list[Revision] = []
    first = await records.get_revision(of.head)
    assert first is not None
    for n in range(times):
        added.append(revision(of, first.number + 1 + n, parent=of.head))
        of = await records.add_revision(added[-1], of, event(of.id, "workspace.revised"))
    return of, added


class OnStores:
    """Tests of a store."""

    @pytest.fixture
    async def stores(self) -> tuple[Records, Records]:
        raise NotImplementedError("give a fixture `stores`")

    @pytest.fixture
    def records(self, stores: tuple[Records, Records]) -> Records:
        return stores[0]
