"""Servers: programs that are kept running in a sandbox, for its sidekick API: made, looked at, stopped, restarted.

Records say what is wanted, labels of processes which of them run: both outlive this server. The rest is `supervising`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from atoll.domain.errors import AtollError, Conflict, DeadlineExceeded, InvalidInput, NotFound
from atoll.domain.fixture import Fixture, FixtureKind
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessInfo
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.services.daemon.fixtures import Fixtures
from atoll.services.daemon.overlays import Overlays, OverlaySpec
from atoll.services.daemon.server_spec import ServerSpec, ServerStatus, check_server, in_order, spec_of
from atoll.services.daemon.supervising import INSTALL_LABEL, LABEL, Health, Supervision, rested
from atoll.services.locks import Locks
from atoll.sidekick.protocol import STDERR, STDOUT

PER_SANDBOX = 16
LOG_BYTES_MAX = 2**20
LOG_S = 15.0
STREAMS = {"stdout": (STDOUT,), "stderr": (STDERR,), "combined": (STDOUT, STDERR)}
KIND = FixtureKind.SERVER


@dataclass(frozen=True, slots=True)
class Server:
    """One server as it is now."""

    fixture: Fixture
    spec: ServerSpec
    status: ServerStatus
    work_dir: str  # of its sandbox
    health: Health | None = None
    rests: bool = False  # its sandbox does not run


class Servers:
    """Use cases. NotFound for a sandbox that the principal does not see, and for a slug that is none's."""

    def __init__(self, fixtures: Fixtures, overlays: Overlays, supervision: Supervision) -> None:
        self._fixtures = fixtures
        self._sandboxes = fixtures.sandboxes
        self._overlays = overlays
        self._supervision = supervision
        self._locks = Locks()

    async def start(
        self, principal: Principal, sandbox_id: str, spec: ServerSpec, overlays: Sequence[OverlaySpec] = ()
    ) -> Server:
        """Keep this program running from now on; one of that slug is stopped, and gives way. Needs `execute`, and
        `write` for overlays. InvalidInput names the field; QuotaExceeded, Conflict when the sandbox has ended."""
        return (await self.add(principal, sandbox_id, [(spec, overlays)]))[0]

    async def add(
        self,
        principal: Principal,
        sandbox_id: str,
        wanted: Sequence[tuple[ServerSpec, Sequence[OverlaySpec]]],
        *,
        all_start: bool = True,
        waiting_for: Sequence[str] = (),
    ) -> list[Server]:
        """Several at once, that may depend on each other. Those with `autostart` false are kept stopped unless
        `all_start`. Each begins after the overlays that it waits for."""
        if len({spec.slug for spec, _ in wanted}) < len(wanted):
            raise InvalidInput("servers: a slug is given more than once", field="slug")
        for spec, _ in wanted:
            check_server(spec)
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        known = {one.name: spec_of(one.spec).depends_on for one in await self._fixtures.list(sandbox_id, KIND)}
        copied = [one.name for one in await self._fixtures.list(sandbox_id, FixtureKind.OVERLAY)]
        in_order([spec for spec, _ in wanted], known, copied)
        if sandbox.state is SandboxState.SUSPENDED:
            await self._sandboxes.processes.labelled(principal, sandbox_id, LABEL)  # wakes it
            sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        made: list[Fixture] = []
        for spec, overlays in wanted:
            ids: list[str] = []
            try:
                for one in overlays:
                    ids.append((await self._overlays.add(principal, sandbox_id, one)).name)
                spec = replace(spec, overlays=(*waiting_for, *ids))
                made.append(await self._put(principal, sandbox, spec, begins=all_start or spec.autostart))
            except AtollError:
                for name in ids:  # nothing waits for them
                    with suppress(AtollError):
                        await self._overlays.remove(principal, sandbox_id, name)
                raise
        return [self._server(one, sandbox) for one in made]

    async def list(self, principal: Principal, sandbox_id: str) -> list[Server]:
        """Oldest first. Needs `read`."""
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.READ)
        return [self._server(one, sandbox) for one in await self._fixtures.list(sandbox_id, KIND)]

    async def get(self, principal: Principal, sandbox_id: str, slug: str) -> Server:
        """Needs `read`."""
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.READ)
        return self._server(await self._fixtures.get(sandbox_id, KIND, slug), sandbox)

    async def stop(self, principal: Principal, sandbox_id: str, slug: str) -> Server:
        """TERM, wait, KILL; it stays stopped until it is restarted. Needs `execute`."""
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        async with self._locks.hold(f"{sandbox_id} {slug}"):
            found = await self._fixtures.get(sandbox_id, KIND, slug)
            found = await self._halt(principal, sandbox, found, "server.stopped")
            await self._supervision.unserve(found)
            return self._server(found, sandbox)

    async def restart(self, principal: Principal, sandbox_id: str, slug: str) -> Server:
        """Stop it if it runs, and start it. Needs `execute`."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        await self._sandboxes.processes.labelled(principal, sandbox_id, LABEL)  # wakes it
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        async with self._locks.hold(f"{sandbox_id} {slug}"):
            found = await self._fixtures.get(sandbox_id, KIND, slug)
            found = await self._halt(principal, sandbox, found, "")
            state = {"wanted": True, "status": ServerStatus.STARTING, "restarts": 0, "error": None}
            found = await self._fixtures.change(found, state, action="server.restarted", actor=principal.id)
            self._attend(found)
            return self._server(found, sandbox)

    async def remove(self, principal: Principal, sandbox_id: str, slug: str) -> None:
        """Stop it and forget it. Needs `execute`."""
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        async with self._locks.hold(f"{sandbox_id} {slug}"):
            found = await self._fixtures.get(sandbox_id, KIND, slug)
            found = await self._halt(principal, sandbox, found, "")
            await self._supervision.unserve(found)
            await self._fixtures.delete(found, principal.id)

    async def set_status(self, principal: Principal, sandbox_id: str, slug: str, status: ServerStatus) -> None:
        """What a program says of itself, until its supervision knows better. Needs `execute`."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        found = await self._fixtures.get(sandbox_id, KIND, slug)
        await self._fixtures.change(found, {"status": status}, action="server.status_set", actor=principal.id)

    async def logs(self, principal: Principal, sandbox_id: str, slug: str, stream: str = "combined") -> str:
        """What its last program wrote (while it is being installed, what that writes), as far as the ring has it.
        Needs `read`. Nothing while the sandbox rests."""
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.READ)
        await self._fixtures.get(sandbox_id, KIND, slug)
        if sandbox.state is not SandboxState.RUNNING:
            return ""
        listed = await self._sandboxes.processes.list(principal, sandbox_id)
        of_it = [info for info in listed if info.label in (LABEL + slug, INSTALL_LABEL + slug)]
        if not of_it:
            return ""
        return (await self._output(principal, sandbox_id, of_it[-1], STREAMS[stream])).decode(errors="replace")

    def adopt(self, fixture: Fixture) -> None:
        """Of a sandbox that runs, after a restart of the server: go on where the last one ended."""
        if fixture.state.get("wanted"):
            self._attend(fixture)

    async def woken(self, fixture: Fixture) -> None:
        """Its sandbox was made again: nothing runs yet."""
        begins = spec_of(fixture.spec).autostart and (fixture.state.get("wanted") or False)
        status = ServerStatus.STARTING if begins else ServerStatus.STOPPED
        await self._fixtures.leave(fixture.id)
        after = await self._fixtures.change(fixture, rested() | {"wanted": begins, "status": status})
        if not begins:
            await self._supervision.unserve(after)
        self.adopt(after)

    def _attend(self, server: Fixture) -> None:
        self._fixtures.attend(server, lambda: self._supervision.attend(server))

    async def _put(self, principal: Principal, sandbox: Sandbox, spec: ServerSpec, *, begins: bool) -> Fixture:
        status = ServerStatus.STARTING if begins else ServerStatus.STOPPED
        if begins and spec.install is not None:
            status = ServerStatus.INSTALLING
        state = rested() | {"wanted": begins, "status": status, "port": None, "exit_code": None, "error": None}
        async with self._locks.hold(f"{sandbox.id} {spec.slug}"):
            try:
                found = await self._fixtures.get(sandbox.id, KIND, spec.slug)
            except NotFound:
                made = await self._fixtures.add(
                    principal, sandbox, KIND, spec.slug, spec.as_json(), state, quota=PER_SANDBOX
                )
            else:
                found = await self._halt(principal, sandbox, found, "")
                state["process"] = found.state["process"]  # whose end is no news
                made = await self._fixtures.change(
                    found, state, spec=spec.as_json(), action="server.changed", actor=principal.id
                )
            if begins:
                self._attend(made)
            else:
                await self._supervision.unserve(made)
        return made

    async def _halt(self, principal: Principal, sandbox: Sandbox, found: Fixture, action: str) -> Fixture:
        """Nobody attends to it any more, and nothing of it runs."""
        found = await self._fixtures.change(found, {"wanted": False}, action=action, actor=principal.id)
        await self._fixtures.leave(found.id)
        exit_code = found.state.get("exit_code")
        if sandbox.state is SandboxState.RUNNING:
            grace_s = spec_of(found.spec).stop_timeout_ms / 1000
            try:
                listed = await self._sandboxes.processes.labelled(principal, sandbox.id, "")
                labels = (LABEL + found.name, INSTALL_LABEL + found.name)
                for info in [one for one in listed if one.label in labels and one.exit is None]:
                    exit_ = await self._sandboxes.processes.stop(principal, sandbox.id, info.id, grace_s=grace_s)
                    exit_code = exit_.code
            except (Conflict, NotFound):
                pass  # it has ended, or its sandbox has
        state = {"status": ServerStatus.STOPPED, "pid": None, "handled": True, "healthy": None, "exit_code": exit_code}
        newest = await self._newest_process(principal, sandbox, found.name)
        return await self._fixtures.change(found, state | {"process": newest})

    async def _newest_process(self, principal: Principal, sandbox: Sandbox, slug: str) -> str | None:
        """Whose end is known now."""
        if sandbox.state is not SandboxState.RUNNING:
            return None
        try:
            listed = await self._sandboxes.processes.labelled(principal, sandbox.id, LABEL + slug)
        except AtollError:
            return None
        return next((info.id for info in reversed(listed) if info.label == LABEL + slug), None)

    async def _output(self, principal: Principal, sandbox_id: str, info: ProcessInfo, kinds: tuple[int, ...]) -> bytes:
        if not info.output_end:
            return b""
        start, found = max(0, info.output_end - LOG_BYTES_MAX), bytearray()
        stream = await self._sandboxes.processes.attach(principal, sandbox_id, info.id, offset=start, output_only=True)
        try:
            async with asyncio.timeout(LOG_S):
                if stream.first_offset < info.output_end:
                    async for kind, data in stream:
                        found += data if kind in kinds else b""
                        if stream.offset >= info.output_end:
                            break
        except TimeoutError:
            raise DeadlineExceeded("the server's log did not come in time") from None
        finally:
            await stream.close()
        return bytes(found)

    def _server(self, fixture: Fixture, sandbox: Sandbox) -> Server:
        rests = sandbox.state is not SandboxState.RUNNING
        status = ServerStatus.STOPPED if rests else ServerStatus(fixture.state.get("status", "stopped"))
        health = None if rests else self._supervision.health.get(fixture.id)
        return Server(fixture, spec_of(fixture.spec), status, sandbox.spec.work_dir, health, rests)
