"""Commands that a session starts and comes back to: each with a number, what it wrote meanwhile, and a bound."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress

from agents.sandbox.errors import PtySessionNotFoundError
from agents.sandbox.session.pty_output import collect_pty_output
from agents.sandbox.session.pty_types import (
    PTY_PROCESSES_MAX,
    PtyExecUpdate,
    allocate_pty_process_id,
    clamp_pty_yield_time_ms,
    process_id_to_prune_from_meta,
    resolve_pty_write_yield_time_ms,
)

from atoll.domain.errors import AtollError
from atoll.sdk._async.process import AsyncProcess

FIRST_YIELD_S, YIELD_S = 10.0, 0.25
KEPT_BYTES = 8 * 2**20  # that nobody has asked for yet; what is older is dropped
END_S = 5.0


class Running:
    """One command, read as it writes."""

    def __init__(self, process: AsyncProcess, *, tty: bool) -> None:
        self.process, self.tty = process, tty
        self.last_used = time.monotonic()
        self.chunks: deque[bytes] = deque()
        self.lock, self.notify, self.over = asyncio.Lock(), asyncio.Event(), asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name=f"output of {process.id}")

    async def _read(self) -> None:
        try:
            async for _, data in self.process:
                async with self.lock:
                    self.chunks.append(data)
                    while len(self.chunks) > 1 and sum(map(len, self.chunks)) > KEPT_BYTES:
                        self.chunks.popleft()
                self.notify.set()
        except AtollError:
            pass  # its sandbox has ended: there is no exit code
        finally:
            self.over.set()
            self.notify.set()

    async def end(self) -> None:
        """Kill it where it still runs, and stop reading."""
        try:
            with suppress(AtollError, TimeoutError):
                async with asyncio.timeout(END_S):
                    if self.process.exit_code is None:
                        await self.process.kill()
        finally:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        with suppress(AtollError, TimeoutError):
            async with asyncio.timeout(END_S):
                await self.process.close()


class Terminals:
    """Those of one session."""

    def __init__(self) -> None:
        self._running: dict[int, Running] = {}
        self._numbers: set[int] = set()

    async def add(
        self, process: AsyncProcess, *, tty: bool, yield_time_s: float | None, max_output_tokens: int | None
    ) -> PtyExecUpdate:
        """Take in a command that was just started; what it wrote until `yield_time_s` have passed or it ended."""
        one = Running(process, tty=tty)
        await self._make_room()
        number = allocate_pty_process_id(self._numbers)
        self._numbers.add(number)
        self._running[number] = one
        wait_s = FIRST_YIELD_S if yield_time_s is None else yield_time_s
        return await self._update(number, one, clamp_pty_yield_time_ms(int(wait_s * 1000)), max_output_tokens)

    async def write(
        self, number: int, chars: str, *, yield_time_s: float | None, max_output_tokens: int | None
    ) -> PtyExecUpdate:
        """Type into one, and what it wrote since."""
        one = self._running.get(number)
        if one is None:
            raise PtySessionNotFoundError(session_id=number)
        if chars:
            if not one.tty:
                raise RuntimeError("stdin is not available for this process")
            await one.process.write(chars)
        wait_s = YIELD_S if yield_time_s is None else yield_time_s
        wait_ms = resolve_pty_write_yield_time_ms(yield_time_ms=int(wait_s * 1000), input_empty=not chars)
        one.last_used = time.monotonic()
        return await self._update(number, one, wait_ms, max_output_tokens)

    async def end_all(self) -> None:
        found, self._running = self._running, {}
        self._numbers.clear()
        await asyncio.gather(*(one.end() for one in found.values()), return_exceptions=True)

    async def _update(self, number: int, one: Running, wait_ms: int, tokens: int | None) -> PtyExecUpdate:
        output, original, closed = await collect_pty_output(
            output_chunks=one.chunks,
            output_lock=one.lock,
            output_notify=one.notify,
            is_done=one.over.is_set,
            yield_time_ms=wait_ms,
            max_output_tokens=tokens,
        )
        if closed:
            self._running.pop(number, None)
            self._numbers.discard(number)
            await one.end()
        return PtyExecUpdate(
            process_id=None if closed else number,
            output=output,
            exit_code=one.process.exit_code if closed else None,
            original_token_count=original,
        )

    async def _make_room(self) -> None:
        if len(self._running) < PTY_PROCESSES_MAX:
            return
        meta = [(number, one.last_used, one.over.is_set()) for number, one in self._running.items()]
        oldest = process_id_to_prune_from_meta(meta)
        if oldest is not None:
            self._numbers.discard(oldest)
            await self._running.pop(oldest).end()
