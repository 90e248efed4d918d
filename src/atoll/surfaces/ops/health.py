"""Health and readiness: one merged object that the monitors of every seed understand; the ops routes serve it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import AtollError
from atoll.services.tasks.history import TaskHistory
from atoll.surfaces.bodies import json_response
from atoll.surfaces.models import AnswerModel
from atoll.telemetry.metrics import Metrics

Probe = Callable[[], Awaitable[object]]

PROBE_S = 2.0
NO_CACHE = {"size": 0, "maxSize": 0, "ttlHours": 0}
FRESH_S = 1.0  # health is public: however often it is asked for, the parts are asked once in this time


class Check(AnswerModel):
    status: Literal["healthy", "unhealthy"]
    detail: str | None = None
    total: str | None = None
    used: str | None = None
    free: str | None = None
    usagePercent: int | None = None


class TaskFigures(AnswerModel):
    """Of the last 24 hours, of everybody's tasks together."""

    activeSessions: int
    recentErrors: int
    successRate: str


class ThreadCache(AnswerModel):
    """Testbase's: all are 0 here, where threads lie in records and workspaces."""

    size: int
    maxSize: int
    ttlHours: int


class HealthAnswer(AnswerModel):
    status: Literal["healthy", "unhealthy"]
    version: str
    service: str
    project: str
    timestamp: datetime
    uptime: int
    checks: dict[str, Check]
    metrics: TaskFigures | None = None
    threadCache: ThreadCache


class ReadyAnswer(AnswerModel):
    status: Literal["ready", "not_ready"]
    sandboxes_active: int
    checks: dict[str, Check]


class Health:
    """Asks each part of the server whether it answers."""

    def __init__(
        self,
        probes: Mapping[str, Probe],
        metrics: Metrics,
        version: str,
        told: Mapping[str, Callable[[], dict[str, Any]]] | None = None,
        history: TaskHistory | None = None,
    ) -> None:
        """`told`: checks of what no request waits for; they are shown, and make nothing unhealthy."""
        self._told = told or {}
        self._history = history
        self._probes = probes
        self._metrics = metrics
        self.version = version
        self._started = monotonic()
        self._checked = -FRESH_S
        self._checks: dict[str, dict[str, Any]] = {}
        self._lock = asyncio.Lock()

    async def health(self, _request: Request) -> Response:
        healthy, answer = await self.told()
        return json_response(answer, 200 if healthy else 503)

    async def healthy(self) -> bool:
        """Whether every part answers."""
        return _all_healthy(await self._look())

    @property
    def sandboxes_active(self) -> int:
        return self._metrics.active

    async def told(self) -> tuple[bool, dict[str, Any]]:
        """Whether the server and its parts work, and all that is said of it."""
        checks = await self._look()
        healthy = _all_healthy(checks)
        answer: dict[str, Any] = {
            "status": "healthy" if healthy else "unhealthy",
            "version": self.version,
            "service": "atoll",
            "project": "atoll",
            "timestamp": datetime.now(UTC),
            "uptime": int(monotonic() - self._started),
            "checks": checks | self._others(),
            "threadCache": NO_CACHE,
        }
        return healthy, answer | await self._figures()

    async def ready(self, _request: Request) -> Response:
        checks = await self._look()
        ready = _all_healthy(checks)
        answer: dict[str, Any] = {
            "status": "ready" if ready else "not_ready",
            "sandboxes_active": self._metrics.active,
            "checks": checks | self._others(),
        }
        return json_response(answer, 200 if ready else 503)

    def _others(self) -> dict[str, dict[str, Any]]:
        return {name: tell() for name, tell in self._told.items()}

    async def _figures(self) -> dict[str, Any]:
        """How everybody's tasks went, where the records can be asked."""
        if self._history is None:
            return {}
        try:
            async with asyncio.timeout(PROBE_S):
                found = await self._history.of_all()
        except (AtollError, TimeoutError):
            return {}
        figures = {
            "activeSessions": found.active_threads,
            "recentErrors": len(found.failed),
            "successRate": f"{found.success_percent:.0f}%",
        }
        return {"metrics": figures}

    async def _look(self) -> dict[str, dict[str, Any]]:
        async with self._lock:
            if monotonic() - self._checked >= FRESH_S:
                names = list(self._probes)
                found = await asyncio.gather(*(_probe(self._probes[name]) for name in names))
                self._checks = dict(zip(names, found, strict=True))
                self._checked = monotonic()
            return self._checks


async def _probe(probe: Probe) -> dict[str, Any]:
    try:
        async with asyncio.timeout(PROBE_S):
            await probe()
    except Exception as error:
        # The kind of fault only: its text may name paths and addresses, and this answer is public.
        return {"status": "unhealthy", "detail": type(error).__name__}
    return {"status": "healthy"}


def _all_healthy(checks: dict[str, dict[str, Any]]) -> bool:
    return all(check["status"] == "healthy" for check in checks.values())
