"""Processes: start, attach, run, list, signal and wait for commands in a sandbox; surfaces reach it as `sandboxes.processes`."""

from __future__ import annotations

from atoll.domain.principal import Principal
from atoll.domain.process import Exit, ProcessInfo, ProcessSpec, RunResult
from atoll.sidekick.client import ProcessStream


class Processes:
    """All of them: Conflict `session not running: status=<s>` unless the sandbox runs (but see `attach`)."""

    async def start(self, principal: Principal, sandbox_id: str, spec: ProcessSpec) -> ProcessStream:
        """Start a process and attach to it; the caller closes the stream (which only detaches). Needs `execute`.

        InvalidInput for an empty or oversized argv or env, or a bad `cwd`. A missing program ends with 127.
        """
        raise NotImplementedError

    async def attach(
        self, principal: Principal, sandbox_id: str, process_id: str = "main", *, offset: int = 0
    ) -> ProcessStream:
        """Replay the output from byte `offset`, then follow; stdin goes in when it is open. Needs `execute`.

        The main process of a sandbox that ended by itself is replayed from its saved log and then has `exit` set.
        Conflict `session not running: status=<s>` where no log is kept. NotFound for the process.
        """
        raise NotImplementedError

    async def run(
        self,
        principal: Principal,
        sandbox_id: str,
        spec: ProcessSpec,
        *,
        stdin: bytes = b"",
        max_output_bytes: int = 8 * 2**20,
    ) -> RunResult:
        """Start, feed stdin, collect up to `max_output_bytes` of each stream, wait for the end. Needs `execute`.

        Cancelling the call ends the process. Its exit says `timed_out` when `spec.timeout_s` ended it.
        """
        raise NotImplementedError

    async def list(self, principal: Principal, sandbox_id: str) -> list[ProcessInfo]:
        """Needs `read`."""
        raise NotImplementedError

    async def signal(self, principal: Principal, sandbox_id: str, process_id: str, signal: int) -> None:
        """Send signal 1..64 to its process group. Needs `execute`. Conflict when it has ended."""
        raise NotImplementedError

    async def wait(
        self, principal: Principal, sandbox_id: str, process_id: str = "main", *, timeout_s: float | None = None
    ) -> Exit:
        """Its end. Needs `read`. DeadlineExceeded after `timeout_s`. The main process of an ended sandbox has one too."""
        raise NotImplementedError
