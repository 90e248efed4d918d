"""Unrecorded: workspaces of which no revision can be taken just now, and why. Their owners are told: by an event, where
the workspace is described, and in the log. All that they hold stays in the working tree meanwhile.

In memory: the next look after a start tells it anew.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from atoll.domain.errors import AtollError
from atoll.domain.workspace import Workspace
from atoll.records.base import Records
from atoll.services.workspaces.access import WorkspaceAccess

_log = structlog.get_logger()

TOLD_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Problem:
    """Since when nothing of a workspace is recorded, and what would have to change."""

    since: datetime
    code: str  # of the error: its message may tell sizes that are others at each look
    message: str


class Unrecorded:
    """By workspace id."""

    def __init__(self, records: Records, access: WorkspaceAccess) -> None:
        self._records = records
        self._access = access
        self._problems: OrderedDict[str, Problem] = OrderedDict()

    def of(self, workspace_id: str) -> Problem | None:
        return self._problems.get(workspace_id)

    async def tell(self, workspace: Workspace, error: AtollError) -> None:
        """The look at its files ended so. Told once, until something of another kind is wrong or it was
        recorded."""
        before = self._problems.get(workspace.id)
        since = before.since if before else self._access.clock()
        self._problems[workspace.id] = Problem(since, error.code, error.message)
        if before is not None and before.code == error.code:
            return
        while len(self._problems) > TOLD_MAX:
            self._problems.popitem(last=False)
        _log.warning("workspace.unrecorded", workspace_id=workspace.id, error=error.message)
        event = self._access.event("workspace.unrecorded", workspace, outcome="failed", message=error.message)
        with suppress(AtollError):  # what is told is the look's error
            await self._records.swap_workspace(workspace, event)

    def clear(self, workspace_id: str) -> None:
        """It is recorded as it is, or gone."""
        self._problems.pop(workspace_id, None)
