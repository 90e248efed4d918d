"""Terminals of the sidekick API: shells on PTYs, which `services/terminals` keeps, and names under which commands run.

A terminal without a PTY is no process: its id says all there is to it, so that it outlives this server.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from atoll.domain.errors import Conflict, InvalidInput, NotFound, QuotaExceeded
from atoll.domain.principal import Principal
from atoll.services import terminals as named
from atoll.services.daemon.commands import LABEL, ONE_OFF, Commands
from atoll.services.daemon.hub import Hubs
from atoll.services.sandboxes import Sandboxes
from atoll.services.terminals import NAME, Terminals

RAW, BASE64 = "raw", "base64"
# How a terminal's output is told stands in its id.
PREFIXES = {RAW: "pty_", BASE64: "pty64_"}
EXEC_ID = re.compile(r"exec_([0-9a-f]{8})([0-9a-f]{8})", re.ASCII)
OPEN_MAX = 64  # of one sandbox, without a PTY
CLOSED_MAX = 256  # of one sandbox, whose ids are still known to be closed
SANDBOXES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class DaemonTerminal:
    """One of either kind. `process_id` is empty without a PTY."""

    id: str
    pty: bool
    status: str  # running, stopped; ready without a PTY
    process_id: str = ""

    @property
    def encoding(self) -> str:
        return encoding_of(self.id)


class DaemonTerminals:
    """Makes, lists and ends them."""

    def __init__(self, sandboxes: Sandboxes, terminals: Terminals, commands: Commands, hubs: Hubs) -> None:
        self._processes = sandboxes.processes
        self._terminals = terminals
        self._commands = commands
        self._hubs = hubs
        self._known: OrderedDict[str, dict[str, bool]] = OrderedDict()  # by sandbox: without a PTY, whether it is open

    async def create(
        self, principal: Principal, sandbox_id: str, *, pty: bool, shell: str | None, encoding: str
    ) -> DaemonTerminal:
        """A new one. Needs `execute`. QuotaExceeded, and InvalidInput (`shell`) for a program that is not there."""
        if not pty:
            return await self._named(principal, sandbox_id)
        name = PREFIXES[encoding] + secrets.token_hex(8)
        stream = await self._terminals.open(principal, sandbox_id, name, shell=shell)
        await stream.close()
        if not stream.pid:
            raise InvalidInput(f"shell: the sandbox has no program {shell or 'sh'!r}", field="shell")
        self._hubs.of(sandbox_id).announce("terminal:created", channel_of(name), {"id": name, "status": "running"})
        return DaemonTerminal(name, True, "running", stream.id)

    async def list(self, principal: Principal, sandbox_id: str) -> list[DaemonTerminal]:
        """Shells that run, and names of commands. Needs `read`."""
        shells = [
            DaemonTerminal(one.name, True, "running", one.process.id)
            for one in await self._terminals.list(principal, sandbox_id)
            if one.process.exit is None
        ]
        of_commands = {one.terminal for one in await self._commands.list(principal, sandbox_id)}
        known = [name for name, is_open in self._known.get(sandbox_id, {}).items() if is_open]
        names = dict.fromkeys([*known, *sorted(of_commands)])
        return [*shells, *(DaemonTerminal(name, False, "ready") for name in names if self._is_named(sandbox_id, name))]

    async def get(self, principal: Principal, sandbox_id: str, name: str) -> DaemonTerminal:
        """Needs `read`. NotFound. One on a PTY that ended lately is `stopped`."""
        there = await self._terminals.list(principal, sandbox_id)
        if name == ONE_OFF or self._is_named(sandbox_id, name):
            return DaemonTerminal(name, False, "ready")
        for one in reversed(there):
            if one.name == name:
                status = "running" if one.process.exit is None else "stopped"
                return DaemonTerminal(name, True, status, one.process.id)
        raise NotFound("terminal not found")

    async def check(self, principal: Principal, sandbox_id: str, name: str) -> None:
        """NotFound for one under whose name nothing can be run. Needs `execute`."""
        label = named.LABEL + name
        there = await self._processes.labelled(principal, sandbox_id, label)
        if name != ONE_OFF and not self._is_named(sandbox_id, name) and not any(one.label == label for one in there):
            raise NotFound("terminal not found")

    async def close(self, principal: Principal, sandbox_id: str, name: str) -> None:
        """End it, with what runs in it. Needs `execute`."""
        if name == ONE_OFF:
            raise Conflict(f"the terminal {ONE_OFF!r} is every sandbox's own, and cannot be closed")
        if self._is_named(sandbox_id, name):
            await self._commands.stop(principal, sandbox_id, name)
            self._keep(sandbox_id, name, is_open=False)
            return
        if not NAME.fullmatch(name):
            await self._processes.labelled(principal, sandbox_id, LABEL)  # a sandbox that is not theirs comes first
            raise NotFound("terminal not found")
        await self._terminals.close(principal, sandbox_id, name)

    async def _named(self, principal: Principal, sandbox_id: str) -> DaemonTerminal:
        await self._processes.labelled(principal, sandbox_id, LABEL)  # may they, and does it run
        if sum(self._known.get(sandbox_id, {}).values()) >= OPEN_MAX:
            raise QuotaExceeded(f"this sandbox has its maximum of {OPEN_MAX} such terminals")
        random = secrets.token_hex(4)
        name = f"exec_{random}{_check(sandbox_id, random)}"
        self._keep(sandbox_id, name, is_open=True)
        return DaemonTerminal(name, False, "ready")

    def _is_named(self, sandbox_id: str, name: str) -> bool:
        """Whether it is the id of one without a PTY that this sandbox was given, and that is not closed."""
        found = EXEC_ID.fullmatch(name)
        return (
            found is not None
            and found[2] == _check(sandbox_id, found[1])
            and self._known.get(sandbox_id, {}).get(name, True)
        )

    def _keep(self, sandbox_id: str, name: str, *, is_open: bool) -> None:
        names = self._known.setdefault(sandbox_id, {})
        self._known.move_to_end(sandbox_id)
        names[name] = is_open
        closed = [known for known, still_open in names.items() if not still_open]
        for old in closed[: max(0, len(closed) - CLOSED_MAX)]:
            del names[old]
        while len(self._known) > SANDBOXES_MAX:
            self._known.popitem(last=False)


def channel_of(name: str) -> str:
    """On which its output is told."""
    return f"terminal:{name}"


def encoding_of(name: str) -> str:
    return BASE64 if name.startswith(PREFIXES[BASE64]) else RAW


def _check(sandbox_id: str, random: str) -> str:
    """No secret: it tells an id of this sandbox from a typing error, and who may name the sandbox may name all."""
    return hashlib.sha256(f"{sandbox_id} {random}".encode()).hexdigest()[:8]
