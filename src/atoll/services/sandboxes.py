"""Sandboxes: the service that every surface calls: make, look at, end; `.processes`, `.files` and `.ports` act inside.

Every method takes the Principal first and raises Forbidden without the scope it names, and NotFound for an id that
is unknown, malformed, removed or somebody else's: the same message for all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxSpec, SandboxState, Usage
from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.services.files import Files
from atoll.services.limits import Limits
from atoll.services.ports import Ports
from atoll.services.processes import Processes
from atoll.services.templates import Templates

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Sandboxes:
    """Use cases of sandboxes. app.py: construct, `await start()` before serving, `await close()` at the end."""

    processes: Processes
    files: Files
    ports: Ports
    templates: Templates

    def __init__(
        self,
        records: Records,
        runtime: Runtime,
        data: Path,
        *,
        limits: Limits | None = None,
        aliases: dict[str, str] | None = None,
        public_host: str = "127.0.0.1",
        clock: Clock = utc_now,
    ) -> None:
        """`data` is the data folder (`logs/` and `layers/` below it are ours); `aliases` map image names to templates;
        `public_host` stands in the URLs of exposed ports, whose listeners bind to 127.0.0.1. Records and runtime are
        started before and closed after this."""
        raise NotImplementedError

    async def start(self) -> None:
        """Reconcile records with the runtime once, re-adopt what runs, then keep watching until `close`."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop watching; sandboxes go on. A second call does nothing."""
        raise NotImplementedError

    async def create(
        self, principal: Principal, spec: SandboxSpec, *, name: str | None = None, request_id: str | None = None
    ) -> Sandbox:
        """Make a sandbox; returns it RUNNING (a very short main process may have ended by the next call).

        Needs `execute`. InvalidInput names the field (`image`, `command`, `env`, `workDir`, `resources.cpuMillis`,
        `resources.memoryMB`, `resources.timeoutMs`, ..., `network`, `ports`, `setup`, `files`, `name`);
        a failing setup line is InvalidInput with its log. QuotaExceeded: `concurrent session limit reached (n/m)`.
        Unsupported, Unavailable, DeadlineExceeded as from the runtime. Conflict when it was killed meanwhile.
        On an error after it was recorded the record stays, FAILED, with the reason.
        """
        raise NotImplementedError

    async def get(self, principal: Principal, sandbox_id: str) -> Sandbox:
        """Needs `read`. Its `usage` is what was last recorded; `usage()` asks."""
        raise NotImplementedError

    async def list(
        self, principal: Principal, *, states: Collection[SandboxState] | None = None, limit: int = 1000
    ) -> list[Sandbox]:
        """The principal's own, newest first, removed ones left out. Needs `read`."""
        raise NotImplementedError

    async def stop(
        self, principal: Principal, sandbox_id: str, *, grace_s: float | None = None, request_id: str | None = None
    ) -> Sandbox:
        """TERM to the main process, wait up to `grace_s`, KILL, destroy; returns it ended. Needs `execute`.

        Conflict `session already <status>` when it has ended. While another stop is under way: waits for that.
        """
        raise NotImplementedError

    async def kill(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> Sandbox:
        """Destroy at once, whatever it is doing (being made, stopping); returns it KILLED. Needs `execute`.

        Conflict `session already <status>` when it has ended.
        """
        raise NotImplementedError

    async def remove(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> None:
        """Take an ended sandbox out of lists and lookups, with its log. Needs `execute`. Conflict while it is live."""
        raise NotImplementedError

    async def keepalive(
        self, principal: Principal, sandbox_id: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Sandbox:
        """Restart its idle and timeout clocks: it now ends `timeout_s` (default: what it was made with) from now.

        Needs `execute`. Never past `max_age_s`. Conflict when it is not running.
        """
        raise NotImplementedError

    async def pause(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> Sandbox:
        """Freeze it. Needs `execute`. Unsupported by some runtimes; Conflict when it is not running."""
        raise NotImplementedError

    async def resume(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> Sandbox:
        """Thaw it; no error when it is not frozen. Needs `execute`."""
        raise NotImplementedError

    async def usage(self, principal: Principal, sandbox_id: str) -> Usage:
        """What it used until now, or in all when it has ended. Needs `read`."""
        raise NotImplementedError
