"""The previews' part of MemoryRecords, in a dictionary."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.preview import Preview
from atoll.records.previews import PreviewRecords


class MemoryPreviews(PreviewRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    _check: Any  # what the rest of MemoryRecords has
    _log: Any
    _sandboxes: Any

    def __init__(self) -> None:
        super().__init__()
        self._previews: dict[str, Preview] = {}

    async def add_preview(self, preview: Preview, event: Event, *, quota: int) -> None:
        self._check()
        kept = sum(one.owner == preview.owner for one in self._previews.values())
        if kept >= quota:
            raise QuotaExceeded(f"preview limit reached ({kept}/{quota})")
        if preview.id in self._previews:
            raise Conflict(f"a preview {preview.id} exists already")
        self._previews[preview.id] = preview
        self._log(event)

    async def swap_preview(self, preview: Preview, event: Event) -> Preview:
        self._check()
        stored = self._previews.get(preview.id)
        if stored is None:
            raise NotFound(f"preview {preview.id} does not exist")
        if stored.version != preview.version:
            raise StaleVersion
        after = self._previews[preview.id] = replace(preview, version=preview.version + 1)
        self._log(event)
        return after

    async def get_preview(self, preview_id: str) -> Preview | None:
        self._check()
        return self._previews.get(preview_id)

    async def list_previews(
        self, owners: Collection[str], *, within: Collection[str] | None = None, after: str = "", limit: int = 1000
    ) -> list[Preview]:
        self._check()
        found = [one for one in self._previews.values() if one.owner in owners and one.id > after]
        if within is not None:
            found = [one for one in found if one.sandbox_id in within or one.owner in within]
        return sorted(found, key=lambda one: one.id)[:limit]

    async def delete_preview(self, preview_id: str, event: Event) -> None:
        self._check()
        if self._previews.pop(preview_id, None) is None:
            raise NotFound(f"preview {preview_id} does not exist")
        self._log(event)

    async def prune_previews(self) -> int:
        self._check()
        there = {name for name, one in self._sandboxes.items() if not one.removed}
        lost = [name for name, one in self._previews.items() if one.sandbox_id not in there]
        for name in lost:
            del self._previews[name]
        return len(lost)
