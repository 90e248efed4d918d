"""Endings: every way a sandbox ends (stopped, killed, exited, ended by the runtime, lost) and what is kept of it.

The end is stored first and the sandbox destroyed after, so that a crash between leaves work for the reconciler, not a
running sandbox that the records call ended for good. The first ending wins; Sandboxes, watchers and reconciler call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, DeadlineExceeded, NotFound
from atoll.domain.event import Event
from atoll.domain.process import MAIN, Exit
from atoll.domain.quota import Bound
from atoll.domain.sandbox import LOST, Sandbox, SandboxState, Usage
from atoll.runtimes.base import Ended
from atoll.services import saved_log
from atoll.services.access import Access
from atoll.services.deadline import deadline
from atoll.services.listeners import Listeners
from atoll.services.lives import Live

_log = structlog.get_logger()

# What the runtime's reasons are in our states; anything else is a failure.
ENDED_BY_RUNTIME = {
    "timeout": SandboxState.KILLED,
    "max_age": SandboxState.KILLED,
    "killed": SandboxState.KILLED,
    "idle": SandboxState.STOPPED,
}


class Endings:
    """Each method returns when nothing of the sandbox is left, or when a deadline passed and the reconciler has it."""

    def __init__(self, access: Access, listeners: Listeners) -> None:
        self._access = access
        self._listeners = listeners
        self.heard: list[Callable[[Sandbox], None]] = []

    async def stop(self, live: Live, grace_s: float, actor: str, request_id: str | None) -> Sandbox:
        """TERM, wait, KILL, destroy. Conflict when it has ended; joins a stop that is under way."""
        if live.sandbox.state in (SandboxState.PENDING, SandboxState.BUILDING):
            return await self.kill(live, actor, request_id, reason="stopped")
        if live.sandbox.state is SandboxState.STOPPING and live.busy:
            return await self._joined(live)
        event = self._access.event("sandbox.stopping", live.sandbox, actor=actor, request_id=request_id)
        with live.held():
            if live.sandbox.state is not SandboxState.STOPPING:
                await self.move(live, SandboxState.STOPPING, event)
            return await self.finish_stop(live, grace_s, actor, request_id)

    async def finish_stop(self, live: Live, grace_s: float, actor: str, request_id: str | None) -> Sandbox:
        """The rest of a stop whose STOPPING is stored: also what the reconciler does with one cut short."""
        access = self._access
        with live.held():
            crash.point("sandboxes.stop.recorded")
            exit_ = await self.stop_all(live, grace_s)
            crash.point("sandboxes.stop.signalled")
            await self._listeners.close(live.sandbox.id)
            usage = await self.destroy(live)
            crash.point("sandboxes.stop.destroyed")
            event = access.event("sandbox.stopped", live.sandbox, actor=actor, request_id=request_id)
            try:
                await access.lives.move(
                    live, SandboxState.STOPPED, event, reason="stopped", measured=usage, **_exit_fields(exit_)
                )
            except Conflict:
                await self.settle(live, usage)  # a kill came in between: it is gone all the same
            self.forget(live)
            return live.sandbox

    async def kill(self, live: Live, actor: str, request_id: str | None, *, reason: str = "killed") -> Sandbox:
        """Whatever it is doing. Conflict when it has ended."""
        event = self._access.event("sandbox.killed", live.sandbox, actor=actor, request_id=request_id)
        with live.held():
            await self.move(live, SandboxState.KILLED, event, reason=reason)
            return await self.clear(live)

    async def main_exited(self, live: Live, exit_: Exit) -> None:
        """Its main process ended: keep the output, record the end, let attached clients read it, destroy."""
        access, sandbox = self._access, live.sandbox
        if sandbox.state is not SandboxState.RUNNING:
            return  # somebody is stopping it
        with live.held():
            await self.save_log(saved_log.log_path(access.data, sandbox.id), await self.read_log(sandbox.id))
            crash.point("sandboxes.exit.saved")
            measured = await self.measure(live)
            reason = "oom_killed" if exit_.oom_killed else "exited"
            event = access.event("sandbox.exited", sandbox, exit_code=exit_.code, signal=exit_.signal)
            try:
                await self.move(
                    live,
                    SandboxState.STOPPED,
                    event,
                    measured=measured,
                    reason=reason,
                    **_exit_fields(exit_),
                )
            except Conflict:  # what it wrote before a rest is not of this end
                await asyncio.to_thread(saved_log.log_path(access.data, sandbox.id).unlink, missing_ok=True)
                return
            try:
                async with deadline(access.limits.attach_drain_s, "reading the end of the output"):
                    await live.main_idle.wait()
            except DeadlineExceeded:
                _log.info("sandbox.clients_cut", sandbox_id=sandbox.id, clients=live.main_clients)
            await self.clear(live)

    async def ended_by_runtime(self, live: Live, ended: Ended) -> None:
        """The runtime says that it ended by itself; nothing of it is left but the record."""
        state = ENDED_BY_RUNTIME.get(ended.reason, SandboxState.FAILED)
        if live.sandbox.state is SandboxState.STOPPING and live.busy:
            return  # what its stop waits for
        if ended.reason == "idle" and self._access.limits.suspend_idle and live.sandbox.may_rest:
            if live.sandbox.state is SandboxState.SUSPENDING and live.busy:
                return  # what its suspension leads to
            with live.held():
                await self.rest(live, ended.reason, ended.usage)
            return
        await self.gone(live, state, ended.reason, ended.usage)

    async def lost(self, live: Live, reason: str = LOST) -> None:
        """It is not there any more and nobody said why. The runtime gets a moment to say; what it said counts, however
        long that takes into the records."""
        try:
            async with deadline(self._access.limits.missing_grace_s, "waiting for the runtime's word"):
                await live.ended.wait()
        except DeadlineExceeded:
            if not self._access.lives.is_told(live.sandbox.id):
                await self.gone(live, SandboxState.FAILED, reason, None)

    async def gone(self, live: Live, state: SandboxState, reason: str, usage: Usage | None) -> None:
        """Record an end that has happened; no error when another one was recorded before."""
        outcome = "ok" if state is not SandboxState.FAILED else reason
        event = self._access.event("sandbox.ended", live.sandbox, outcome=outcome, reason=reason)
        with live.held():
            try:
                await self.move(live, state, event, reason=reason, measured=usage)
            except Conflict:
                return
            await self.clear(live)

    async def rest(
        self, live: Live, reason: str, usage: Usage | None, actor: str = "system", request_id: str | None = None
    ) -> None:
        """Record that it is suspended: nothing of it is left in the runtime, its ports go on listening.

        No error when another end was recorded before.
        """
        event = self._access.event("sandbox.suspended", live.sandbox, actor=actor, request_id=request_id, reason=reason)
        try:
            await self.move(live, SandboxState.SUSPENDED, event, reason=reason, measured=usage)
        except Conflict:
            await self.settle(live, usage)
            await self._listeners.close(live.sandbox.id)
        self.forget(live)

    async def destroy(self, live: Live) -> Usage | None:
        """Its final usage; None when it did not exist or could not be destroyed in time (the reconciler goes on)."""
        try:
            async with deadline(self._access.limits.destroy_s, "destroying the sandbox"):
                return await self._access.runtime.destroy(live.sandbox.id)
        except Exception:
            _log.exception("sandbox.destroy_failed", sandbox_id=live.sandbox.id)
            return None

    async def measure(self, live: Live) -> Usage:
        """What the runtime counted of this life until now; of the first at least how long it is by our own clock."""
        access = self._access
        started = None if live.sandbox.usage.earlier_duration_s else live.sandbox.started_at
        since = max(0.0, (access.clock() - started).total_seconds()) if started else 0.0
        try:
            async with deadline(access.limits.call_s, "measuring the sandbox"):
                usage = await access.runtime.stats(live.sandbox.id)
        except NotFound:
            return Usage(duration_s=since)
        except Exception as error:
            _log.warning("sandbox.stats_failed", sandbox_id=live.sandbox.id, error=str(error))
            return Usage(duration_s=since)
        return usage if usage.duration_s else replace(usage, duration_s=since)

    async def drop_log(self, sandbox_id: str) -> None:
        data = self._access.data
        for path in (saved_log.log_path(data, sandbox_id), saved_log.earlier_path(data, sandbox_id)):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def move(
        self,
        live: Live,
        state: SandboxState,
        event: Event,
        measured: Usage | None = None,
        bounds: Sequence[Bound] = (),
        **changes: Any,
    ) -> None:
        """Store its next state; Conflict `session already <status>` when it has ended."""
        try:
            await self._access.lives.move(live, state, event, measured=measured, bounds=bounds, **changes)
        except Conflict:
            if live.sandbox.live:
                raise
            raise Conflict(f"session already {live.sandbox.state}") from None

    async def clear(self, live: Live) -> Sandbox:
        """Destroy a sandbox whose end is stored, and store what it used in all."""
        crash.point("sandboxes.end.recorded")
        await self._listeners.close(live.sandbox.id)
        usage = await self.destroy(live)
        crash.point("sandboxes.end.destroyed")
        await self.settle(live, usage)
        self.forget(live)
        return live.sandbox

    async def settle(self, live: Live, usage: Usage | None) -> None:
        """Store what it used in all."""
        total = live.usage(usage)
        if total == live.sandbox.usage:
            return
        try:
            await self._access.lives.move(live, None, None, measured=usage)
        except AtollError as error:
            _log.warning("sandbox.usage_lost", sandbox_id=live.sandbox.id, error=error.message)

    def forget(self, live: Live) -> None:
        """Nothing of it is left in the runtime, and what is to be recorded is."""
        if live.watcher is not None and live.watcher is not asyncio.current_task():
            live.watcher.cancel()
        self._access.lives.forget(live)
        self._access.gates.close(live.sandbox.id)
        self._access.mounting.ended(live.sandbox)
        self.tell(live.sandbox)
        self._access.metrics.sandbox_ended(live.sandbox.id)
        self._access.metrics.set_active(len(self._access.lives))

    def tell(self, sandbox: Sandbox) -> None:
        """Whoever wants to hear of ends hears of this one."""
        for heard in self.heard:
            heard(sandbox)

    async def _joined(self, live: Live) -> Sandbox:
        limits = self._access.limits
        within_s = limits.stop_grace_s_max + limits.call_s + limits.destroy_s
        async with deadline(within_s, "the stop that is under way"):
            await live.gone.wait()
        return live.sandbox

    async def stop_all(self, live: Live, grace_s: float) -> Exit | None:
        """TERM to all its processes, wait, KILL; the end of its main process, if that is known."""
        access = self._access
        try:
            async with deadline(grace_s + access.limits.call_s, "stopping its processes"):
                if live.paused:
                    await access.runtime.resume(live.sandbox.id)  # a frozen process hears no TERM
                    live.paused = False
                return await access.runtime.sidekick(live.sandbox.id).stop_all(grace_s)
        except Exception as error:  # destroy ends it whatever happened here
            _log.info("sandbox.stop_cut", sandbox_id=live.sandbox.id, error=str(error))
            return None

    async def read_log(self, sandbox_id: str) -> bytes | None:
        """The output of its main process, which has ended, after that of its earlier lives; None when it is lost."""
        access = self._access
        try:
            async with deadline(access.limits.call_s, "reading the log"):
                earlier = await asyncio.to_thread(saved_log.load, saved_log.earlier_path(access.data, sandbox_id), 0)
                stream = await access.runtime.sidekick(sandbox_id).attach(MAIN, 0)
                if earlier is not None:
                    stream = saved_log.ContinuedStream(earlier, stream, earlier.end)
                try:
                    return await saved_log.collect(stream, access.limits.log_bytes_max)
                finally:
                    await stream.close()
        except NotFound:
            return None  # somebody killed it meanwhile
        except Exception:
            _log.warning("sandbox.log_lost", sandbox_id=sandbox_id, exc_info=True)
            return None

    async def save_log(self, path: Path, frames: bytes | None) -> None:
        """What `read_log` gave."""
        if frames is None:
            return
        try:
            await asyncio.to_thread(saved_log.save, path, frames)
        except OSError:
            _log.warning("sandbox.log_lost", path=str(path), exc_info=True)


def _exit_fields(exit_: Exit | None) -> dict[str, Any]:
    return {} if exit_ is None else {"exit_code": exit_.code, "exit_signal": exit_.signal}
