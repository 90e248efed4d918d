"""Threads: the conversations that tasks continue; Testbase's sessions. `Tasks` calls it."""

from __future__ import annotations

import re
from dataclasses import replace

from atoll.domain.errors import NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.task import TaskState, Thread
from atoll.services.tasks.access import TaskAccess

THREAD_ID = re.compile(r"^thread_[0-9a-f]{24}$")
SWAPS_MAX = 8
LIST_MAX = 10_000


class NoThread(NotFound):
    """Session not found"""


class Threads:
    """NoThread, always the same, for an id that is unknown, deleted or somebody else's."""

    def __init__(self, access: TaskAccess) -> None:
        self._access = access

    async def get(self, principal: Principal, thread_id: str) -> Thread:
        """Needs `read`."""
        principal.require(Scope.READ)
        return await self.find(principal, thread_id)

    async def list(
        self, principal: Principal, *, active: bool = False, limit: int = 1000, offset: int = 0
    ) -> list[Thread]:
        """The principal's own, the last used first; `active`: those with a task that has not ended. Needs `read`."""
        principal.require(Scope.READ)
        limit, offset = max(0, min(limit, LIST_MAX)), max(0, offset)
        found = await self._access.records.list_threads(
            principal.id,
            active=active,
            limit=limit if principal.resources is None else LIST_MAX,
            offset=offset if principal.resources is None else 0,
        )
        if principal.resources is None:
            return found
        return [one for one in found if _sees(principal, one)][offset : offset + limit]

    async def delete(self, principal: Principal, thread_id: str) -> Thread:
        """Nothing continues it from now on; a task of it that runs goes on. What the agent remembers of it stays in the
        workspace's files. Needs `write`."""
        principal.require(Scope.WRITE)
        access = self._access
        for _ in range(SWAPS_MAX):
            thread = await self.find(principal, thread_id)
            now = access.clock()
            event = Event("thread.deleted", thread.id, tenant=thread.owner, actor=principal.id, at=now)
            try:
                return await access.records.swap_thread(replace(thread, deleted_at=now), event)
            except StaleVersion:
                continue
        raise StaleVersion()

    async def find(self, principal: Principal, thread_id: str) -> Thread:
        thread = await self._access.records.get_thread(thread_id) if THREAD_ID.match(thread_id) else None
        if thread is None or thread.deleted_at is not None or not _sees(principal, thread):
            raise NoThread
        return thread

    async def continued(self, principal: Principal, session: str | None, workspace: str, agent: str) -> Thread:
        """The thread that a new task continues, in that workspace; a new one where none is named."""
        now = self._access.clock()
        if not session:
            return Thread(new_id("thread"), principal.id, workspace, agent, now, now)
        thread = await self.find(principal, session)
        if thread.workspace != workspace:
            raise NoThread
        return thread

    async def is_active(self, thread: Thread) -> bool:
        """Whether a task of it has not ended."""
        states = {TaskState.QUEUED, TaskState.RUNNING, TaskState.ENDING}
        return bool(await self._access.records.list_tasks(thread=thread.id, states=states, limit=1))


def _sees(principal: Principal, thread: Thread) -> bool:
    own = thread.owner == principal.id
    return own and (principal.reaches(thread.owner, thread.id) or principal.reaches(thread.owner, thread.workspace))
