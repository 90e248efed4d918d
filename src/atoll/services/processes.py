"""Processes: start, attach to, run, list, signal and wait for commands; surfaces reach it as `sandboxes.processes`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from atoll.domain.errors import AtollError, Conflict, Internal, InvalidInput, NotFound
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.process import MAIN, Exit, ProcessInfo, ProcessSpec, RunResult
from atoll.domain.sandbox import Sandbox
from atoll.domain.secret import GivenAs
from atoll.services import saved_log
from atoll.services.access import Access, not_running
from atoll.services.deadline import deadline
from atoll.services.lives import Live
from atoll.services.locks import Locks
from atoll.services.paths import absolute
from atoll.services.specs import check_given_env, check_process_spec
from atoll.sidekick.client import ProcessStream, SidekickClient
from atoll.sidekick.protocol import STDERR, STDOUT
from atoll.telemetry.spans import note, spanned, with_traceparent

_log = structlog.get_logger()

SIGNAL_MAX = 64
PROCESS_ID_CHARS_MAX = 64
LEAVE_S = 5.0


class Interrupted(Conflict):
    """The sandbox ended under a command: it has run, nobody knows how far."""


class Processes:
    """All of them: Conflict `session not running: status=<s>` unless the sandbox runs (but see `attach`, `wait`)."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.limits = access.limits
        self.naming = Locks()  # held by whoever starts a process unless there is one with its label

    @spanned("process.start")
    async def start(self, principal: Principal, sandbox_id: str, spec: ProcessSpec) -> ProcessStream:
        """Start a process and attach to it; the caller closes the stream (which only detaches). Needs `execute`.

        InvalidInput for an empty or oversized argv or env, or a bad `cwd`. A missing program ends with 127.
        """
        live = await self._access.running(principal, sandbox_id, Scope.EXECUTE)
        check_process_spec(spec, self._access.limits)
        await self._access.quotas.execution(principal, live.sandbox)
        return await self._start(live, await self._given(principal, live, spec))

    async def attach(
        self,
        principal: Principal,
        sandbox_id: str,
        process_id: str = MAIN,
        *,
        offset: int = 0,
        output_only: bool = False,
    ) -> ProcessStream:
        """Replay the output from byte `offset`, then follow; stdin goes in when it is open. Needs `execute`, or
        `read` for a caller that promises with `output_only` to put nothing in.

        The main process of a sandbox that ended by itself is replayed from its saved log and then has `exit` set; what
        those of its earlier lives wrote comes first, before a rest that somebody asked for.
        Conflict `session not running: status=<s>` where no log is kept. NotFound for the process.
        """
        access = self._access
        if offset < 0:
            raise InvalidInput("offset must not be negative", field="offset")
        scope = Scope.READ if output_only else Scope.EXECUTE
        sandbox = await access.find(principal, sandbox_id, scope)
        if not sandbox.live:
            return await self._saved(sandbox, process_id, offset, output_only)
        live = await access.running(principal, sandbox_id, scope)
        if process_id == MAIN and not sandbox.spec.command:
            raise Conflict("session has no main process: start one with exec")
        earlier = await self._earlier(sandbox, process_id, offset)
        begins = earlier.end if earlier else 0
        stream = _Metered(access, live, process_id)
        try:
            async with access.inside(live, "attaching", within_s=access.limits.call_s):
                found = await self._sidekick(live).attach(_process_id(process_id), max(0, offset - begins))
                stream.open(saved_log.ContinuedStream(earlier, found, begins) if earlier else found)
        except Conflict:
            stream.release()
            if not live.sandbox.live:  # it ended between the look and the call
                return await self._saved(live.sandbox, process_id, offset, output_only)
            raise
        except BaseException:
            stream.release()
            raise
        return stream

    @spanned("process.run")
    async def run(
        self,
        principal: Principal,
        sandbox_id: str,
        spec: ProcessSpec,
        *,
        stdin: bytes = b"",
        max_output_bytes: int = 8 * 2**20,
        begun: Callable[[], None] | None = None,
    ) -> RunResult:
        """Start, tell `begun` unless there is no such program, feed stdin, collect up to `max_output_bytes` of each
        stream, wait for the end. Needs `execute`.

        Cancelling the call ends the process. Its exit says `timed_out` when `spec.timeout_s` ended it. Interrupted when
        the sandbox ends before the command does.
        """
        access = self._access
        live = await access.running(principal, sandbox_id, Scope.EXECUTE)
        check_process_spec(spec, access.limits)
        if len(stdin) > access.limits.stdin_bytes_max:
            raise InvalidInput(f"stdin must be at most {access.limits.stdin_bytes_max} bytes", field="stdin")
        await access.quotas.execution(principal, live.sandbox)
        most = max(0, min(max_output_bytes, access.limits.output_bytes_max))
        within_s = None if spec.timeout_s is None else spec.timeout_s + access.limits.call_s
        spec = await self._given(principal, live, spec)
        stream = await self._start(live, replace(spec, stdin=True) if stdin else spec)
        if begun is not None and stream.pid:
            begun()
        try:
            async with access.inside(live, "the command", within_s=within_s):
                return await _collected(stream, stdin if spec.stdin or stdin else None, most)
        except Conflict as error:
            raise Interrupted(error.message) from None  # there is nothing left to end
        except NotFound:
            raise
        except BaseException:
            if live.sandbox.live:
                access.background.spawn(self._end(live, stream.id), "run.end")
            raise
        finally:
            await stream.close()

    async def list(self, principal: Principal, sandbox_id: str) -> list[ProcessInfo]:
        """Running ones and those that ended lately. Needs `read`."""
        access = self._access
        live = await access.running(principal, sandbox_id, Scope.READ)
        async with access.inside(live, "listing processes", within_s=access.limits.call_s):
            return await self._sidekick(live).processes()

    async def labelled(self, principal: Principal, sandbox_id: str, prefix: str) -> list[ProcessInfo]:
        """Those whose label begins so, oldest first, for whoever is about to act on one. Needs `execute`."""
        access = self._access
        live = await access.running(principal, sandbox_id, Scope.EXECUTE)
        async with access.inside(live, "finding the process", within_s=access.limits.call_s):
            return [info for info in await self._sidekick(live).processes() if info.label.startswith(prefix)]

    async def output_end(self, principal: Principal, sandbox_id: str, process_id: str = MAIN) -> int | None:
        """The offset after the last byte that it wrote until now; None when there will be no more. Needs `read`.

        One that rests is not woken. NotFound for the process.
        """
        sandbox = await self._access.find(principal, sandbox_id, Scope.READ)
        if not sandbox.live:
            return None
        try:
            listed = await self.list(principal, sandbox_id)
        except Conflict:
            return None  # it has ended meanwhile: its saved log is complete
        for info in listed:
            if info.id == process_id:
                earlier = await self._earlier(sandbox, process_id, 0)
                begins = earlier.end if earlier else 0
                return None if info.exit is not None else begins + info.output_end
        raise NotFound("process not found")

    async def signal(self, principal: Principal, sandbox_id: str, process_id: str, signal: int) -> None:
        """Send signal 1..64 to its process group. Needs `execute`. Conflict when it has ended."""
        access = self._access
        live = await access.running(principal, sandbox_id, Scope.EXECUTE)
        if not 1 <= signal <= SIGNAL_MAX:
            raise InvalidInput(f"signal must be within 1..{SIGNAL_MAX}", field="signal")
        async with access.inside(live, "signalling", within_s=access.limits.call_s):
            await self._sidekick(live).signal(_process_id(process_id), signal)

    async def stop(self, principal: Principal, sandbox_id: str, process_id: str, *, grace_s: float = 5.0) -> Exit:
        """TERM to its whole tree, wait up to `grace_s`, KILL; its end. Needs `execute`."""
        access = self._access
        live = await access.running(principal, sandbox_id, Scope.EXECUTE)
        if not 0 <= grace_s <= access.limits.stop_grace_s_max:
            raise InvalidInput(f"grace must be within 0..{access.limits.stop_grace_s_max:g} s", field="grace")
        async with access.inside(live, "stopping the process", within_s=grace_s + access.limits.call_s):
            return await self._sidekick(live).stop(_process_id(process_id), grace_s)

    async def leave(self, principal: Principal, sandbox_id: str, stream: ProcessStream) -> None:
        """Nobody waits for it any more: end it, if it has not ended, and close its stream; what fails is no matter."""
        with suppress(AtollError, OSError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                if stream.exit is None:
                    await self.stop(principal, sandbox_id, stream.id, grace_s=0)
        with suppress(AtollError, OSError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await stream.close()

    async def wait(
        self, principal: Principal, sandbox_id: str, process_id: str = MAIN, *, timeout_s: float | None = None
    ) -> Exit:
        """Its end. Needs `read`. DeadlineExceeded after `timeout_s`. The main one of an ended sandbox has one too."""
        access = self._access
        sandbox = await access.find(principal, sandbox_id, Scope.READ)
        if not sandbox.live:
            if process_id == MAIN and sandbox.exit_code is not None:
                return Exit(sandbox.exit_code, sandbox.exit_signal, duration_s=sandbox.usage.duration_s)
            raise not_running(sandbox)
        live = await access.running(principal, sandbox_id, Scope.READ)
        async with access.inside(live, "the process", within_s=timeout_s):
            return await self._sidekick(live).wait(_process_id(process_id))

    async def _given(self, principal: Principal, live: Live, spec: ProcessSpec) -> ProcessSpec:
        """With what its secrets are: variables of its own; files are put in place."""
        if not spec.secrets:
            return spec
        access, sandbox = self._access, live.sandbox
        async with deadline(access.limits.call_s, "opening the secrets"):
            uses = await access.giving.resolve(principal, spec.secrets, sandbox.owner)
            known = {use.secret for use in sandbox.spec.secrets if use.given_as is GivenAs.BROKER}
            if any(use.given_as is GivenAs.BROKER and use.secret not in known for use in uses):
                raise InvalidInput("secrets: a brokered one is named when the session is created", field="secrets")
            given = await access.giving.give(uses, sandbox.owner, sandbox.id)
        check_given_env(spec.env, given.env, access.limits)
        async with access.inside(live, "giving the secrets", within_s=access.limits.call_s):
            for path, value in given.files.items():
                await self._sidekick(live).write_file(path, _whole(value), mode=0o400)
        return replace(spec, env={**spec.env, **given.env}, secrets=())

    def _sidekick(self, live: Live) -> SidekickClient:
        return self._access.runtime.sidekick(live.sandbox.id)

    async def _start(self, live: Live, spec: ProcessSpec) -> _Metered:
        access = self._access
        if spec.cwd is not None:
            spec = replace(spec, cwd=absolute(spec.cwd, live.sandbox.spec.work_dir))
        spec = replace(spec, env=with_traceparent(spec.env))
        note("atoll.sandbox_id", live.sandbox.id)
        stream = _Metered(access, live, "")
        started = asyncio.ensure_future(self._sidekick(live).start(spec))
        try:
            async with access.inside(live, "starting the process", within_s=access.limits.call_s):
                stream.open(await asyncio.shield(started))
        except BaseException:
            # The sandbox may have the request already, and nobody will ever know the id of what it starts.
            access.background.spawn(self._abandon(live, started), "abandon a start")
            raise
        live.exec_count += 1
        access.metrics.exec_started(live.sandbox.id, spec.argv)
        return stream

    async def _abandon(self, live: Live, started: asyncio.Future[ProcessStream]) -> None:
        try:
            stream = await started
        except Exception:
            return  # it did not start
        await stream.close()
        with suppress(NotFound, Conflict):
            await self._end(live, stream.id)

    async def _end(self, live: Live, process_id: str) -> None:
        """End a command that nobody waits for any more."""
        try:
            async with deadline(self._access.limits.call_s, "ending the command"):
                await self._sidekick(live).stop(process_id, 0)
        except AtollError as error:
            _log.info("process.end_cut", sandbox_id=live.sandbox.id, error=error.message)

    async def _saved(self, sandbox: Sandbox, process_id: str, offset: int, output_only: bool) -> ProcessStream:
        if process_id == MAIN:
            path = saved_log.log_path(self._access.data, sandbox.id)
            stream = await asyncio.to_thread(saved_log.load, path, offset)
            if stream is None and output_only:  # it rests, or was killed in a later life
                stream = await self._earlier(sandbox, process_id, offset)
            if stream is not None:
                return stream
        raise not_running(sandbox)

    async def _earlier(self, sandbox: Sandbox, process_id: str, offset: int) -> saved_log.SavedStream | None:
        """What its main process wrote in earlier lives, from `offset` on."""
        if process_id != MAIN or not sandbox.may_rest:
            return None
        path = saved_log.earlier_path(self._access.data, sandbox.id)
        return await asyncio.to_thread(saved_log.load, path, offset)


class _Metered(ProcessStream):
    """A client's stream that counts its bytes for the sandbox, and tells main processes' clients from others'."""

    def __init__(self, access: Access, live: Live, process_id: str) -> None:  # pyright: ignore[reportMissingSuperCall]
        self._access = access
        self._live = live
        self._main = process_id == MAIN
        self._started = process_id == ""
        self._inner: ProcessStream | None = None
        if self._main:
            live.main_attached()

    def open(self, inner: ProcessStream) -> None:
        self._inner = inner
        self.id, self.pid, self.exit = inner.id, inner.pid, inner.exit
        self.offset, self.first_offset = inner.offset, inner.first_offset

    def release(self) -> None:
        """Nobody reads it any more; a second call does nothing."""
        if self._main:
            self._main = False
            self._live.main_detached()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        inner = self._open()
        try:
            async for kind, data in inner:
                self.offset = inner.offset
                self._live.bytes_out += len(data)
                yield kind, data
        except NotFound:
            # The sandbox ended under it: say how, unless it is still there.
            async with self._access.inside(self._live, "following the process", within_s=None):
                raise
        self.exit = inner.exit
        if self._started and self.exit is not None:
            self._started = False
            self._access.metrics.exec_ended(self.exit.duration_s)
            self._access.mounting.changed(self._live.sandbox)

    async def write_stdin(self, data: bytes) -> None:
        self._live.bytes_in += len(data)
        await self._open().write_stdin(data)

    async def close_stdin(self) -> None:
        await self._open().close_stdin()

    async def resize(self, cols: int, rows: int) -> None:
        await self._open().resize(cols, rows)

    async def close(self) -> None:
        self.release()
        await self._open().close()
        if self._started and self._live.sandbox.spec.workspaces and self._live.sandbox.live:
            self._started = False
            follower = self._access.background.spawn(self._outlive(), f"follow {self.id}")
            self._live.followers.add(follower)
            follower.add_done_callback(self._live.followers.discard)

    async def _outlive(self) -> None:
        """Its client has gone and it runs still: what it writes is to be a revision when it ends."""
        with suppress(AtollError):
            await self._access.runtime.sidekick(self._live.sandbox.id).wait(self.id)
            self._access.mounting.changed(self._live.sandbox)

    def _open(self) -> ProcessStream:
        if self._inner is None:
            raise Internal("the stream is not open")
        return self._inner


async def _whole(value: bytes) -> AsyncIterator[bytes]:
    yield value


async def _collected(stream: ProcessStream, stdin: bytes | None, bytes_max: int) -> RunResult:
    feeder = None if stdin is None else asyncio.create_task(_feed(stream, stdin))
    outputs = {STDOUT: bytearray(), STDERR: bytearray()}
    truncated = False
    try:
        async for kind, data in stream:
            room = bytes_max - len(outputs[kind])
            outputs[kind] += data[:room]
            truncated = truncated or len(data) > room
    finally:
        if feeder is not None:
            feeder.cancel()
    if stream.exit is None:
        raise Internal("the process's end was not told")
    return RunResult(stream.id, stream.exit, bytes(outputs[STDOUT]), bytes(outputs[STDERR]), truncated)


async def _feed(stream: ProcessStream, data: bytes) -> None:
    await stream.write_stdin(data)
    await stream.close_stdin()


def _process_id(process_id: str) -> str:
    if not process_id or len(process_id) > PROCESS_ID_CHARS_MAX:
        raise NotFound("process not found")
    return process_id
