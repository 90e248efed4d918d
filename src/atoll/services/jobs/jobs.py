"""Jobs: start, list and stop the background jobs of a sandbox; surfaces that have such jobs call it.

A job is a process with the label `job:<id>`: it lives in its sandbox, whatever becomes of this server. By a variable of
its environment all that it has started is found when it is stopped.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from atoll.domain.errors import AtollError, InvalidInput, NotFound, QuotaExceeded
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessInfo, ProcessSpec
from atoll.services.jobs.loop import REPORT_BYTES, Report, argv_of, report_of
from atoll.services.sandboxes import Sandboxes
from atoll.sidekick.protocol import STDERR
from atoll.sidekick.tree import JOB

LABEL = "job:"
JOB_ID = re.compile(r"[0-9a-f]{32}")
INTERVAL_S_MAX = 86_400
STOP_GRACE_S = 1.0
LOOK_BYTES = 65_536  # of its newest output, where its last report usually is
READ_S = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job that runs, and what its command did until now."""

    id: str
    process: ProcessInfo
    report: Report


class Jobs:
    """The use cases."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._processes = sandboxes.processes
        self._per_sandbox = sandboxes.processes.limits.jobs_per_sandbox

    async def start(self, principal: Principal, sandbox_id: str, argv: tuple[str, ...], *, interval_s: int) -> str:
        """Run the command, at most 10 s, wait `interval_s`, and so on until it is stopped or the sandbox ends; its id.

        Needs `execute`. InvalidInput (`interval`), QuotaExceeded, and as from `Processes.start`.
        """
        if not 1 <= interval_s <= INTERVAL_S_MAX:
            raise InvalidInput(f"interval must be within 1..{INTERVAL_S_MAX} seconds", field="interval")
        job_id = uuid.uuid4().hex
        async with self._processes.naming.hold(f"{sandbox_id} {LABEL}"):
            there = await self._processes.labelled(principal, sandbox_id, LABEL)
            if sum(one.exit is None for one in there) >= self._per_sandbox:
                raise QuotaExceeded(f"this sandbox has its maximum of {self._per_sandbox} background jobs")
            spec = ProcessSpec(argv_of(argv, interval_s), {JOB: job_id}, label=LABEL + job_id)
            stream = await self._processes.start(principal, sandbox_id, spec)
            await stream.close()
        return job_id

    async def list(self, principal: Principal, sandbox_id: str) -> list[Job]:
        """Those that run, oldest first. Needs `read`."""
        there = [one for one in await self._processes.list(principal, sandbox_id) if one.label.startswith(LABEL)]
        running = [one for one in there if one.exit is None]
        reports = await asyncio.gather(*(self._report(principal, sandbox_id, one) for one in running))
        return [Job(one.label.removeprefix(LABEL), one, report) for one, report in zip(running, reports, strict=True)]

    async def stop(self, principal: Principal, sandbox_id: str, job_id: str) -> None:
        """End it, with whatever it is running. Needs `execute`. NotFound for a job that does not run."""
        there = await self._processes.labelled(principal, sandbox_id, LABEL)
        found = next((one for one in there if one.label == LABEL + job_id and one.exit is None), None)
        if found is None or not JOB_ID.fullmatch(job_id):
            raise NotFound("job not found")
        await self._processes.stop(principal, sandbox_id, found.id, grace_s=STOP_GRACE_S)

    async def _report(self, principal: Principal, sandbox_id: str, one: ProcessInfo) -> Report:
        """Of its newest output, or where the command writes a lot, of all that is kept."""
        for since in (max(one.output_start, one.output_end - LOOK_BYTES), one.output_start):
            try:
                async with asyncio.timeout(READ_S):
                    told = await self._told(principal, sandbox_id, one, since)
            except (AtollError, TimeoutError):
                break  # it has ended meanwhile, or does not answer
            report = report_of(told)
            if report is not None:
                return report
            if since == one.output_start:
                break
        return Report()

    async def _told(self, principal: Principal, sandbox_id: str, one: ProcessInfo, since: int) -> bytes:
        """The end of what the loop itself wrote, of the output from that offset to what it was."""
        if since >= one.output_end:
            return b""
        stream = await self._processes.attach(principal, sandbox_id, one.id, offset=since, output_only=True)
        told = b""
        try:
            pieces: AsyncIterator[tuple[int, bytes]] = aiter(stream)
            async with aclosing(pieces):  # type: ignore[type-var]
                async for kind, data in pieces:
                    if kind == STDERR:
                        told = (told + data)[-2 * REPORT_BYTES :]
                    if stream.offset >= one.output_end:
                        break
        finally:
            await stream.close()
        return told
