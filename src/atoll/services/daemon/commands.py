"""Commands: what the sidekick API of a sandbox runs, in the foreground, in the background or streamed.

A command is a process with the label `cmd:<terminal>:<id>`, so that it is found again whatever becomes of this server.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.domain.errors import AtollError, DeadlineExceeded, NotFound, QuotaExceeded
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessInfo, ProcessSpec, RunResult
from atoll.services.daemon.hub import Hubs
from atoll.services.sandboxes import Sandboxes
from atoll.services.specs import check_process_spec
from atoll.sidekick.protocol import STDERR, STDOUT

LABEL = "cmd:"
ONE_OFF = "run"  # the terminal of commands that name none
COMMAND_ID = re.compile(r"cmd_[0-9a-f]{16}", re.ASCII)
FOREGROUND_S = 3600.0  # a command that somebody waits for is ended then
WAIT_MAX_S = 300.0
READ_S = 15.0  # for the output that there is
PENDING_S = 600.0  # that a command waits for its start
PENDING_MAX, PENDING_PER_SANDBOX = 10_000, 64
BASH = ("/bin/bash", "/usr/bin/bash")
SHELLS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be run: a line for a shell."""

    command: str
    shell: str | None = None  # default: bash where the sandbox has it, else sh
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float | None = None  # its whole tree is ended then


@dataclass(frozen=True, slots=True)
class Command:
    """A command that runs, or that ended lately."""

    id: str
    terminal: str
    process: ProcessInfo

    @property
    def line(self) -> str:
        """What it was asked to do, cut as lists of processes are."""
        return self.process.argv[-1] if self.process.argv else ""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command wrote until now; `truncated` when the ring has lost its beginning."""

    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False


class Commands:
    """Starts, lists and follows them."""

    def __init__(self, sandboxes: Sandboxes, hubs: Hubs, *, output_bytes: int = 8 * 2**20) -> None:
        self._processes = sandboxes.processes
        self._files = sandboxes.files
        self._hubs = hubs
        self._output_bytes = output_bytes
        self._pending: OrderedDict[tuple[str, str], tuple[float, str, Asked]] = OrderedDict()
        self._shells: OrderedDict[str, str] = OrderedDict()

    async def run(
        self, principal: Principal, sandbox_id: str, asked: Asked, terminal: str = ONE_OFF
    ) -> tuple[str, RunResult]:
        """Its id and how it ended. Needs `execute`. Cancelling the call ends it."""
        command_id = new_id()
        spec = await self._spec(principal, sandbox_id, asked, terminal, command_id, FOREGROUND_S)
        result = await self._processes.run(principal, sandbox_id, spec, max_output_bytes=self._output_bytes)
        return command_id, result

    async def start(self, principal: Principal, sandbox_id: str, asked: Asked, terminal: str = ONE_OFF) -> str:
        """Its id; it goes on by itself. Needs `execute`."""
        command_id = new_id()
        await self._start(principal, sandbox_id, asked, terminal, command_id)
        return command_id

    async def prepare(self, principal: Principal, sandbox_id: str, asked: Asked, terminal: str = ONE_OFF) -> str:
        """The id of a command that `begin` starts, once who asked listens. Needs `execute`; InvalidInput as
        from `Processes.start`. It waits in memory: one that has not begun when this server ends never does."""
        await self._processes.labelled(principal, sandbox_id, LABEL)  # whoever may not run it learns that now
        check_process_spec(_process(asked, asked.shell or "sh", asked.timeout_s, ""), self._processes.limits)
        self._forget_stale()
        if sum(key[0] == sandbox_id for key in self._pending) >= PENDING_PER_SANDBOX:
            raise QuotaExceeded(f"{PENDING_PER_SANDBOX} commands of this sandbox wait for their start already")
        command_id = new_id()
        self._pending[sandbox_id, command_id] = (time.monotonic(), terminal, asked)
        return command_id

    async def begin(self, principal: Principal, sandbox_id: str, command_id: str) -> None:
        """Start a prepared command, once, and tell those who listen. Needs `execute`."""
        await self._files.check(principal, sandbox_id, Scope.EXECUTE)  # who may not does not take it from who may
        self._forget_stale()
        found = self._pending.pop((sandbox_id, command_id), None)
        if found is None:
            raise NotFound("no such command waits for its start")
        _, terminal, asked = found
        await self._start(principal, sandbox_id, asked, terminal, command_id)
        self._hubs.of(sandbox_id).start(channel_of(command_id))

    def waits(self, sandbox_id: str, command_id: str) -> bool:
        return (sandbox_id, command_id) in self._pending

    async def list(self, principal: Principal, sandbox_id: str, terminal: str | None = None) -> list[Command]:
        """Those of a terminal, or all; oldest first. Needs `read`."""
        found = [command_in(info) for info in await self._processes.list(principal, sandbox_id)]
        return [one for one in found if one is not None and terminal in (None, one.terminal)]

    async def get(self, principal: Principal, sandbox_id: str, command_id: str, terminal: str | None = None) -> Command:
        """Needs `read`. NotFound for one that ended too long ago as well."""
        for one in await self.list(principal, sandbox_id, terminal):
            if one.id == command_id:
                return one
        raise NotFound("command not found")

    async def output(self, principal: Principal, sandbox_id: str, command: Command) -> Output:
        """What it wrote until now, as far as the ring has it. Needs `read`."""
        end = command.process.output_end
        if not end:
            return Output()
        outputs = {STDOUT: bytearray(), STDERR: bytearray()}
        stream = await self._processes.attach(principal, sandbox_id, command.process.id, output_only=True)
        try:
            async with asyncio.timeout(READ_S):
                if stream.first_offset < end:
                    async for kind, data in stream:
                        outputs[kind] += data
                        if stream.offset >= end:
                            break
        except TimeoutError:
            raise DeadlineExceeded("the command's output did not come in time") from None
        finally:
            await stream.close()
        return Output(bytes(outputs[STDOUT]), bytes(outputs[STDERR]), stream.first_offset > 0)

    async def wait(
        self, principal: Principal, sandbox_id: str, command_id: str, timeout_s: float, terminal: str | None = None
    ) -> Command:
        """As it is when it has ended, or when the time has passed. Needs `read`."""
        found = await self.get(principal, sandbox_id, command_id, terminal)
        if found.process.exit is not None:
            return found
        try:
            await self._processes.wait(
                principal, sandbox_id, found.process.id, timeout_s=max(0.0, min(timeout_s, WAIT_MAX_S))
            )
        except DeadlineExceeded:
            pass
        return await self.get(principal, sandbox_id, command_id, terminal)

    async def stop(self, principal: Principal, sandbox_id: str, terminal: str) -> None:
        """End those of a terminal that still run. Needs `execute`."""
        for info in await self._processes.labelled(principal, sandbox_id, f"{LABEL}{terminal}:"):
            if info.exit is None:
                try:
                    await self._processes.stop(principal, sandbox_id, info.id, grace_s=1.0)
                except NotFound:
                    continue  # it ended meanwhile, and long ago

    async def _start(self, principal: Principal, sandbox_id: str, asked: Asked, terminal: str, command_id: str) -> None:
        spec = await self._spec(principal, sandbox_id, asked, terminal, command_id, None)
        stream = await self._processes.start(principal, sandbox_id, spec)
        await stream.close()

    async def _spec(
        self,
        principal: Principal,
        sandbox_id: str,
        asked: Asked,
        terminal: str,
        command_id: str,
        timeout_s: float | None,
    ) -> ProcessSpec:
        shell = asked.shell or await self._shell(principal, sandbox_id)
        return _process(asked, shell, asked.timeout_s or timeout_s, f"{LABEL}{terminal}:{command_id}")

    async def _shell(self, principal: Principal, sandbox_id: str) -> str:
        """bash where the sandbox has it: looked for once."""
        if sandbox_id not in self._shells:
            try:
                found = await self._look_for_shell(principal, sandbox_id)
            except AtollError:
                return "sh"  # it may not be looked for: running the command tells what is wrong
            self._shells[sandbox_id] = found
            while len(self._shells) > SHELLS_MAX:
                self._shells.popitem(last=False)
            return found
        return self._shells[sandbox_id]

    async def _look_for_shell(self, principal: Principal, sandbox_id: str) -> str:
        for path in BASH:
            try:
                await self._files.stat(principal, sandbox_id, path)
            except NotFound:
                continue
            return path
        await self._files.check(principal, sandbox_id, Scope.READ)  # it is the files that are missing
        return "sh"

    def _forget_stale(self) -> None:
        now = time.monotonic()
        while self._pending:
            key = next(iter(self._pending))
            if now - self._pending[key][0] < PENDING_S and len(self._pending) < PENDING_MAX:
                return
            del self._pending[key]


def _process(asked: Asked, shell: str, timeout_s: float | None, label: str) -> ProcessSpec:
    return ProcessSpec(
        (shell, "-c", asked.command), env=dict(asked.env), cwd=asked.cwd, timeout_s=timeout_s, label=label
    )


def new_id() -> str:
    return f"cmd_{secrets.token_hex(8)}"


def channel_of(command_id: str) -> str:
    """On which its output is told."""
    return f"command:{command_id}"


def command_in(info: ProcessInfo) -> Command | None:
    """The command that a process is, by its label."""
    kind, _, rest = info.label.partition(":")
    terminal, _, command_id = rest.rpartition(":")
    if kind != LABEL.rstrip(":") or not COMMAND_ID.fullmatch(command_id):
        return None
    return Command(command_id, terminal, info)
