"""Isolation: whether the runtime keeps sandboxes in, proved once beside the first requests of a server.

The server's health asks it, and so do its metrics.
"""

from __future__ import annotations

import structlog

from atoll.domain.errors import AtollError, Unavailable
from atoll.runtimes.base import Runtime

_log = structlog.get_logger()


class Isolation:
    """A server that cannot prove its isolation says so and is not healthy."""

    def __init__(self, runtime: Runtime) -> None:
        self.proved: bool | None = None  # once that is known
        self._runtime = runtime
        self._failed = ""  # the rules that did not hold when this server started

    async def prove(self) -> None:
        """Ask the runtime for the proof."""
        try:
            report = await self._runtime.prove()
        except AtollError as error:
            self._failed = error.message
        else:
            failed = [] if report is None or report.isolated else [c.name for c in report.checks if not c.ok]
            self._failed = ", ".join(failed)
        self.proved = not self._failed
        if self._failed:
            _log.error("isolation not proved", failed=self._failed, fix="atoll doctor")

    async def check(self) -> None:
        """Unavailable, naming what failed."""
        if self._failed:
            raise Unavailable(f"isolation not proved: {self._failed}")
