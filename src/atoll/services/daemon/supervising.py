"""Supervising: one server is started after what it depends on, followed, looked at, and started again by its policy.

The server's process is found by its label `server:<slug>`, so that another life of Atoll goes on where this one ends.
`servers` gives each server that is wanted one task that runs this.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from atoll.domain.errors import AtollError, Conflict, NotFound
from atoll.domain.fixture import Fixture, FixtureKind
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessInfo, ProcessSpec
from atoll.domain.sandbox import SandboxState
from atoll.services.daemon.env_files import EnvFiles
from atoll.services.daemon.fixtures import Fixtures, owner_of
from atoll.services.daemon.health import is_well, status_of
from atoll.services.daemon.overlays import Overlays
from atoll.services.daemon.port_urls import PortUrls
from atoll.services.daemon.server_spec import HealthCheck, RestartPolicy, ServerSpec, ServerStatus, spec_of
from atoll.services.daemon.signals import Signals
from atoll.services.identity.principals import Principals
from atoll.services.locks import Locks

_log = structlog.get_logger()

LABEL, INSTALL_LABEL = "server:", "install:"
SHELL = ("sh", "-c")
DELAY_MIN_S, DELAY_MAX_S = 0.1, 60.0  # between two starts
SHORT_LIFE_S = 10.0
LOOK_S, LOOK_MAX_S = 0.1, 2.0  # whether it listens by now
WAIT_S = 0.2  # for what it depends on
INSTALL_S = 3600.0
FAULT_S = 2.0
PORTS_TRIED = 200

_S = ServerStatus
_OVER = (_S.FAILED, _S.STOPPED)


class _Failed(Exception):
    """It cannot be started: what is to be told of it."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


@dataclass(slots=True)
class Health:
    """How the last looks at a server went: in memory, for it is found anew after a restart."""

    last_check: datetime | None = None
    last_status: int | None = None
    consecutive_failures: int = 0


@dataclass(slots=True)
class _Run:
    """One server while it is attended to."""

    fixture: Fixture
    spec: ServerSpec
    owner: Principal
    health: Health = field(default_factory=Health)
    short_lives: int = 0  # in a row

    @property
    def state(self) -> dict[str, Any]:
        return self.fixture.state


class Supervision:
    """What attends to servers."""

    def __init__(
        self, fixtures: Fixtures, overlays: Overlays, env_files: EnvFiles, signals: Signals, urls: PortUrls
    ) -> None:
        self._fixtures = fixtures
        self._sandboxes = fixtures.sandboxes
        self._overlays = overlays
        self._env_files = env_files
        self._signals = signals
        self._urls = urls
        self._owners = Principals(fixtures.records)
        self._choosing = Locks()
        self.health: dict[str, Health] = {}  # by the server's id

    async def attend(self, fixture: Fixture) -> None:
        """Until it is not wanted any more, fails, or its sandbox does not run."""
        try:
            fixture = await self._fixtures.get(fixture.sandbox, fixture.kind, fixture.name)
        except NotFound:
            return
        run = _Run(fixture, spec_of(fixture.spec), owner_of(fixture))
        self.health[fixture.id] = run.health
        try:
            while run.state.get("wanted") and await self._runs(run):
                try:
                    await self._turn(run)
                except Conflict:
                    await asyncio.sleep(DELAY_MIN_S)  # it goes to rest just now, or somebody changed its record
                except NotFound:
                    return
                except AtollError as error:
                    _log.info("server.unattended", server=fixture.id, error=error.message)
                    await asyncio.sleep(FAULT_S)
        finally:
            self.health.pop(fixture.id, None)

    async def _runs(self, run: _Run) -> bool:
        try:
            sandbox = await self._sandboxes.get(run.owner, run.fixture.sandbox)
        except NotFound:
            return False
        return sandbox.state is SandboxState.RUNNING

    async def _turn(self, run: _Run) -> None:
        """One life of its program, from where it is."""
        found = await self._newest(run, LABEL)
        handled = run.state.get("handled", True) and (found is None or found.id == run.state.get("process"))
        exit_code: int | None = None
        if found is not None and found.exit is None:
            exit_code = await self._follow(run, found)
        elif handled:
            try:
                started = await self._start(run)
            except _Failed as failed:
                await self._over(run, _S.FAILED, failed.message, failed.exit_code)
                return
            exit_code = await self._follow(run, started)
        elif found is not None and found.exit is not None:
            exit_code = found.exit.code  # it ended while nobody looked
        if await self._runs(run):
            await self._ended(run, exit_code)

    async def _newest(self, run: _Run, label: str) -> ProcessInfo | None:
        listed = await self._sandboxes.processes.list(run.owner, run.fixture.sandbox)
        found = [info for info in listed if info.label == label + run.spec.slug]
        running = [info for info in found if info.exit is None]
        return (running or found or [None])[-1]

    # starting

    async def _start(self, run: _Run) -> ProcessInfo:
        await self._note(run, status=_S.STARTING, error=None)
        if await self._owners.has_ended(run.fixture.owner):
            raise _Failed("whoever owns the sandbox is gone")
        await self._wait_for_others(run)
        await self._install(run)
        spec, sandbox_id = run.spec, run.fixture.sandbox
        before = await self._sandboxes.open_ports.now(run.owner, sandbox_id)
        async with self._choosing.hold(sandbox_id):  # two that begin together do not choose the same
            port = await self._free_port(run, set(before))
            await self._note(run, port=port)
        env = await self._environment(run)
        if port is not None:
            env["PORT"] = str(port)
        process = ProcessSpec((*SHELL, spec.start), env=env, cwd=spec.path, label=LABEL + spec.slug, serves=True)
        try:
            stream = await self._sandboxes.processes.start(run.owner, sandbox_id, process)
        except AtollError as error:
            raise _Failed(error.message) from None
        await stream.close()
        await self._note(
            run, status=_S.RUNNING, process=stream.id, pid=stream.pid, before=before, handled=False,
            exit_code=None, healthy=None,
        )  # fmt: skip
        found = await self._newest(run, LABEL)
        if found is None:
            raise _Failed("it ended at once")
        return found

    async def _wait_for_others(self, run: _Run) -> None:
        """Until each server that it depends on is up, and each overlay is copied."""
        sandbox_id = run.fixture.sandbox
        for name in (*run.spec.overlays, *run.spec.depends_on):
            while True:
                overlay = await self._overlays.status(sandbox_id, name)
                if overlay is not None:
                    if overlay == "failed":
                        raise _Failed(f"the overlay {name} could not be copied")
                    if overlay == "complete":
                        break
                elif await self._is_up(sandbox_id, name):
                    break
                await asyncio.sleep(WAIT_S)

    async def _is_up(self, sandbox_id: str, slug: str) -> bool:
        try:
            other = await self._fixtures.get(sandbox_id, FixtureKind.SERVER, slug)
        except NotFound:
            raise _Failed(f"it depends on {slug}, which is gone") from None
        status = other.state.get("status")
        if status in _OVER and not other.state.get("wanted"):
            raise _Failed(f"it depends on {slug}, which has {status}")
        looked_at = other.spec.get("health_check") is not None or other.spec.get("port") is not None
        return status == _S.READY or (status == _S.RUNNING and not looked_at)

    async def _install(self, run: _Run) -> None:
        spec = run.spec
        if spec.install is None or run.state.get("installed"):
            return
        await self._note(run, status=_S.INSTALLING)
        sandbox_id, found = run.fixture.sandbox, await self._newest(run, INSTALL_LABEL)
        if found is None or found.exit is not None:
            process = ProcessSpec(
                (*SHELL, spec.install),
                env=await self._environment(run),
                cwd=spec.path,
                label=INSTALL_LABEL + spec.slug,
                timeout_s=INSTALL_S,
            )
            try:
                stream = await self._sandboxes.processes.start(run.owner, sandbox_id, process)
            except AtollError as error:
                raise _Failed(error.message) from None
            await stream.close()
            process_id = stream.id
        else:
            process_id = found.id
        exit_ = await self._sandboxes.processes.wait(run.owner, sandbox_id, process_id)
        if not await self._runs(run):
            raise Conflict("the sandbox does not run")
        if exit_.code != 0:
            raise _Failed(f"its install command ended with {exit_.code}", exit_.code)
        await self._note(run, installed=True, status=_S.STARTING)

    async def _environment(self, run: _Run) -> dict[str, str]:
        spec, found = run.spec, dict[str, str]()
        if spec.env_file is not None:
            relative = spec.path is not None and not spec.env_file.startswith("/")
            file = f"{spec.path}/{spec.env_file}" if relative else spec.env_file
            try:
                found = await self._env_files.read(run.owner, run.fixture.sandbox, file)
            except AtollError as error:
                raise _Failed(f"env_file: {error.message}") from None
        return found | dict(spec.environment)

    async def _free_port(self, run: _Run, taken: set[int]) -> int | None:
        wanted = run.spec.port
        if wanted is None:
            return None
        others = await self._fixtures.list(run.fixture.sandbox, FixtureKind.SERVER)
        taken |= {one.state.get("port") or 0 for one in others if one.id != run.fixture.id and one.state.get("wanted")}
        if wanted not in taken:
            return wanted
        if run.spec.strict_port:
            raise _Failed(f"port {wanted} is taken")
        for port in range(wanted + 1, min(wanted + PORTS_TRIED, 65_536)):
            if port not in taken:
                return port
        raise _Failed(f"port {wanted} is taken, and so are those that follow it")

    # running

    async def _follow(self, run: _Run, process: ProcessInfo) -> int | None:
        """Its exit code, once it has ended."""
        if run.state.get("process") != process.id or run.state.get("handled", True):
            await self._note(run, process=process.id, pid=process.pid, handled=False, status=_S.RUNNING)
        looks, began = asyncio.create_task(self._look_after(run)), time.monotonic()
        try:
            exit_ = await self._sandboxes.processes.wait(run.owner, run.fixture.sandbox, process.id)
            run.short_lives = run.short_lives + 1 if time.monotonic() - began < SHORT_LIFE_S else 0
            return exit_.code
        finally:
            looks.cancel()
            await asyncio.wait((looks,))

    async def _look_after(self, run: _Run) -> None:
        """Look at it for as long as it runs; a look that was refused, say in a crowded sandbox, is not the last."""
        while True:
            try:
                await self._look_on(run)
                return
            except AtollError as error:
                _log.info("server.not_looked_at", server=run.fixture.id, error=error.message)
            await asyncio.sleep(FAULT_S)

    async def _look_on(self, run: _Run) -> None:
        """Tell when it listens; with a health check, whether it is well, for as long as it runs."""
        port = await self._until_listening(run)
        sandbox_id = run.fixture.sandbox
        url = await self._urls.serve(run.owner, sandbox_id, run.spec.slug, port, self._signals.base(sandbox_id))
        check = run.spec.health_check
        if check is None:
            await self._ready(run, port, url)
            return
        await asyncio.sleep(check.delay_ms / 1000)
        while True:
            if await self._look(run, check, port) and run.state.get("status") != _S.READY:
                await self._ready(run, port, url)
            await asyncio.sleep(check.interval_ms / 1000)

    async def _until_listening(self, run: _Run) -> int:
        """The port that it listens on: the one that it was given, else the first new one that is nobody else's."""
        delay_s, wanted = LOOK_S, run.state.get("port")
        before = set(run.state.get("before") or ())
        while True:
            ports = await self._sandboxes.open_ports.now(run.owner, run.fixture.sandbox)
            if wanted in ports:
                return wanted
            if wanted is None and (new := set(ports) - before):
                others = await self._fixtures.list(run.fixture.sandbox, FixtureKind.SERVER)
                new -= {one.state.get("port") for one in others if one.id != run.fixture.id}
                if new:
                    await self._note(run, port=min(new))
                    return min(new)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.2, LOOK_MAX_S)

    async def _ready(self, run: _Run, port: int, url: str) -> None:
        await self._note(run, status=_S.READY)
        data = {"signal": "server-ready", "port": port, "url": url}
        self._signals.tell(run.fixture.sandbox, data)

    async def _look(self, run: _Run, check: HealthCheck, port: int) -> bool:
        connect = lambda: self._sandboxes.open_ports.probe(run.owner, run.fixture.sandbox, port)  # noqa: E731
        status = await status_of(connect, check.path, check.timeout_ms / 1000)
        health, well = run.health, is_well(status)
        health.last_check, health.last_status = self._fixtures.clock(), status
        health.consecutive_failures = 0 if well else health.consecutive_failures + 1
        if run.state.get("healthy") is not well:
            fields: dict[str, Any] = {"healthy": well}
            if not well and run.state.get("status") == _S.READY:
                fields["status"] = _S.RUNNING
            await self._note(run, **fields)
        return well

    # its end

    async def _ended(self, run: _Run, exit_code: int | None) -> None:
        spec, count = run.spec, int(run.state.get("restarts", 0))
        policy = spec.restart_policy
        again = policy is RestartPolicy.ALWAYS or (policy is RestartPolicy.ON_FAILURE and exit_code != 0)
        shown = "an unknown code" if exit_code is None else f"code {exit_code}"
        if exit_code != 0:
            message = f"server {spec.slug} ended with {shown}"
            self._signals.tell(run.fixture.sandbox, {"signal": "error", "message": message})
        if not again:
            status = _S.STOPPED if exit_code == 0 else _S.FAILED
            await self._over(run, status, None if exit_code == 0 else f"it ended with {shown}", exit_code)
            return
        if spec.max_restarts and count >= spec.max_restarts:
            await self._over(run, _S.FAILED, f"it ended with {shown} after {count} restarts", exit_code)
            return
        await self._note(
            run, status=_S.RESTARTING, restarts=count + 1, handled=True, exit_code=exit_code, pid=None, healthy=None
        )
        await asyncio.sleep(delay_s(spec.restart_delay_ms / 1000, run.short_lives))

    async def _over(self, run: _Run, status: ServerStatus, error: str | None, exit_code: int | None) -> None:
        await self.unserve(run.fixture)
        await self._note(
            run, status=status, wanted=False, handled=True, exit_code=exit_code, pid=None, healthy=None, error=error
        )
        if status is _S.FAILED:
            message = f"server {run.spec.slug} failed: {error}"
            self._signals.tell(run.fixture.sandbox, {"signal": "error", "message": message})

    async def unserve(self, server: Fixture) -> None:
        """It listens no more: nobody is led to its port."""
        await self._urls.unserve(owner_of(server), server.sandbox, server.name)

    async def _note(self, run: _Run, **state: Any) -> None:
        run.fixture = await self._fixtures.change(run.fixture, state)


def delay_s(wanted_s: float, short_lives: int) -> float:
    """How long after its end a server is started again: as it says, and longer each time while it never lasts."""
    own_s = max(wanted_s, DELAY_MIN_S)
    return max(own_s, min(own_s * 2 ** min(max(short_lives - 1, 0), 16), DELAY_MAX_S))


def rested() -> dict[str, Any]:
    """What is to be written of a server whose sandbox is made again: nothing of its program is left."""
    return {"process": None, "handled": True, "installed": False, "restarts": 0, "pid": None, "healthy": None}
