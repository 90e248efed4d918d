"""Sandbox configurations: what was asked for a workspace's own sandbox; sealed, since secrets may stand in it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

from atoll.domain.errors import StaleVersion
from atoll.domain.workspace import Workspace
from atoll.records.base import Records
from atoll.services.workspaces.storage.keys import LineageKeys
from atoll.services.workspaces.storage.sealed_values import SealedValues

LISTED_MAX = 1_000_000


class SandboxConfigs:
    """Seals and opens `Workspace.sandbox_config`."""

    def __init__(self, records: Records, keys: LineageKeys) -> None:
        self._records = records
        self._sealed = SealedValues(keys)

    async def seal(self, workspace: Workspace, config: dict[str, Any]) -> str:
        """As the workspace's record keeps it. The key of its lineage must be stored already."""
        return await self._sealed.seal(workspace.lineage, _label(workspace), config)

    async def open(self, workspace: Workspace) -> dict[str, Any]:
        """What was asked for; nothing, when that was nothing. Corrupt."""
        stored = workspace.sandbox_config
        if stored is None:
            return {}
        if _clear(stored):
            return json.loads(stored)
        return await self._sealed.open(workspace.lineage, _label(workspace), stored)

    async def seal_clear_ones(self) -> None:
        """Seal those that lie as they came, as an earlier version left them. Who changes one meanwhile wins."""
        for workspace in await self._records.list_workspaces(limit=LISTED_MAX):
            if workspace.sandbox_config is not None and _clear(workspace.sandbox_config):
                sealed = await self.seal(workspace, json.loads(workspace.sandbox_config))
                with suppress(StaleVersion):  # the next start seals it
                    await self._records.swap_workspace(replace(workspace, sandbox_config=sealed), None)


def _clear(stored: str) -> bool:
    return stored.startswith("{")  # which base64 never does


def _label(workspace: Workspace) -> str:
    return f"configuration of {workspace.id}"
