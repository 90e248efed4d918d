"""Terminals: shells on PTYs that have names; every surface that shows terminals opens them here.

A terminal is a process with the label `term:<name>`: it lives in its sandbox, whatever becomes of this server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from atoll.domain.errors import InvalidInput, NotFound, QuotaExceeded
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.process import Exit, ProcessInfo, ProcessSpec
from atoll.domain.sandbox_token import TokenKind
from atoll.services.sandbox_tokens import TERMINAL_S, NewToken, SandboxTokens
from atoll.services.sandboxes import Sandboxes
from atoll.sidekick.client import ProcessStream

LABEL = "term:"
DEFAULT_NAME = "default"
SHELLS = ("bash", "sh")  # the first that the sandbox has
COLS, ROWS = 80, 24
STOP_GRACE_S = 1.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal that runs, or that ended lately (`process.exit`)."""

    name: str
    process: ProcessInfo


class Terminals:
    """Opens, lists and closes them; any number of these may be in use. `per_sandbox`: default: as the limits say."""

    def __init__(self, sandboxes: Sandboxes, *, per_sandbox: int | None = None) -> None:
        self._processes = sandboxes.processes
        self._per_sandbox = per_sandbox or sandboxes.processes.limits.terminals_per_sandbox

    async def open(
        self,
        principal: Principal,
        sandbox_id: str,
        name: str = DEFAULT_NAME,
        *,
        shell: str | None = None,
        cols: int | None = None,
        rows: int | None = None,
        offset: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ProcessStream:
        """Attach to the terminal of that name, or start one: `shell`, else bash, else sh. Needs `execute`.

        What it wrote is replayed from byte `offset` (default: all that the ring still has), then followed. With an
        `offset` above 0 one that ended lately is found too: its last output and its exit are told, once. A size that
        is given is its size from now on, for all who see it; the slowest of them sets its pace.
        InvalidInput (`terminal`, `cols`, `rows`, `offset`), QuotaExceeded, and as from `Processes.start`.
        """
        if offset is not None and offset < 0:
            raise InvalidInput("offset must not be negative", field="offset")
        label = LABEL + checked_name(name)
        async with self._processes.naming.hold(f"{sandbox_id} {LABEL}"):  # one for all names: they are counted
            there = await self._processes.labelled(principal, sandbox_id, LABEL)
            found = _wanted(there, label, ended_too=bool(offset))
            if found is None:
                return await self._start(principal, sandbox_id, there, label, shell, cols, rows, env, cwd)
        stream = await self._processes.attach(principal, sandbox_id, found.id, offset=offset or 0)
        try:
            if cols is not None and rows is not None:
                await stream.resize(cols, rows)
        except BaseException:
            await stream.close()
            raise
        return stream

    async def list(self, principal: Principal, sandbox_id: str) -> list[Terminal]:
        """Those that run, and those that ended lately, oldest first. Needs `read`."""
        found = await self._processes.list(principal, sandbox_id)
        return [Terminal(one.label.removeprefix(LABEL), one) for one in found if one.label.startswith(LABEL)]

    async def close(self, principal: Principal, sandbox_id: str, name: str) -> Exit:
        """End it with all that runs in it; its end. Needs `execute`. NotFound when none of that name runs."""
        there = await self._processes.labelled(principal, sandbox_id, LABEL)
        found = _wanted(there, LABEL + name, ended_too=False)
        if found is None:
            raise NotFound("terminal not found")
        return await self._processes.stop(principal, sandbox_id, found.id, grace_s=STOP_GRACE_S)

    async def _start(
        self,
        principal: Principal,
        sandbox_id: str,
        there: list[ProcessInfo],
        label: str,
        shell: str | None,
        cols: int | None,
        rows: int | None,
        env: Mapping[str, str] | None,
        cwd: str | None,
    ) -> ProcessStream:
        if sum(one.exit is None for one in there) >= self._per_sandbox:
            raise QuotaExceeded(f"this sandbox has its maximum of {self._per_sandbox} terminals open")
        shells = SHELLS if shell is None else (shell,)
        for program in shells:
            spec = ProcessSpec(
                (program,),
                env=dict(env or {}),
                cwd=cwd,
                tty=True,
                cols=cols or COLS,
                rows=rows or ROWS,
                stdin=True,
                label=label,
            )
            stream = await self._processes.start(principal, sandbox_id, spec)
            if stream.pid or program == shells[-1]:
                return stream
            await stream.close()  # there is no such program: the next one
        raise AssertionError


async def terminal_token(tokens: SandboxTokens, principal: Principal, sandbox_id: str) -> NewToken:
    """One that opens the sandbox's terminals for a minute; what it has opened goes on. Needs `execute`. NotFound."""
    principal.require(Scope.EXECUTE)
    return await tokens.mint(principal, sandbox_id, kind=TokenKind.TERMINAL, lasts_s=TERMINAL_S)


def checked_name(name: str) -> str:
    """A terminal's name; InvalidInput (`terminal`) for what cannot be one."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            "terminal must be 1 to 64 letters, digits, or _ . : - and begin with a letter or digit", field="terminal"
        )
    return name


def _wanted(there: list[ProcessInfo], label: str, *, ended_too: bool) -> ProcessInfo | None:
    """The newest of that label that runs; where none does, and `ended_too`, the newest of all."""
    named = [one for one in there if one.label == label]
    running = [one for one in named if one.exit is None and one.tty]
    return (running or (named if ended_too else [None]) or [None])[-1]
