"""SandboxNames: sandboxes by a name that is one of a kind in a namespace of their owner, while they have not ended.

Surfaces whose clients choose names ask it. A name is claimed in the step that records the sandbox, so that of any
number of callers, on any number of servers, one makes it and the others find it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from atoll.domain.errors import DeadlineExceeded, InvalidInput, NameTaken, NotFound
from atoll.domain.ids import SANDBOX_ID
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.records.base import Records
from atoll.services.deadline import deadline

CHARS_MAX = 128
LOOK_AGAIN_S = 0.02
LOOK_AGAIN_S_MAX = 0.5
MAKING = frozenset(
    {
        SandboxState.PENDING,
        SandboxState.BUILDING,
        SandboxState.RESUMING,
        SandboxState.SUSPENDING,
        SandboxState.STOPPING,
    }
)


class SandboxNames:
    """`wait_s` is how long one that somebody else makes may take."""

    def __init__(self, records: Records, *, wait_s: float = 60.0) -> None:
        self._records = records
        self._wait_s = wait_s

    async def find(self, principal: Principal, namespace: str, name: str) -> Sandbox | None:
        """The one of that name that has not ended, of the principal's own or else of its groups'; or the last one that
        was lost with its machine and can be made again. Needs `read`."""
        principal.require(Scope.READ)
        found = await self._records.find_named_sandboxes(principal.owners, namespace, name)
        seen = [one for one in found if principal.sees(one.owner, one.id)]
        seen.sort(key=lambda one: principal.owners.index(one.owner))
        here = next((one for one in seen if not one.ended), None)
        return here or next((one for one in seen if one.may_wake), None)

    async def resolve(self, principal: Principal, id_or_name: str, namespace: str) -> str:
        """The id that is meant: an id stays as it is, whosever it may be. NotFound for a name that nobody has."""
        if SANDBOX_ID.match(id_or_name):
            return id_or_name
        found = await self.find(principal, namespace, id_or_name) if len(id_or_name) <= CHARS_MAX else None
        if found is None:
            raise NotFound("session not found")
        return found.id

    async def claim(
        self, principal: Principal, namespace: str, name: str, make: Callable[[], Awaitable[Sandbox]]
    ) -> tuple[Sandbox, bool]:
        """The sandbox of that name, and whether this call made it: where there is none, with `make`, which calls
        `Sandboxes.create` with that name and namespace. Waits for one that somebody else is making, or ending.

        DeadlineExceeded when that waiting takes too long, which making it is no part of; errors as from `make`.
        """
        what, until = f"waiting for the sandbox {name!r}", math.inf
        while True:
            async with deadline(self._wait_s, what):
                found = await self._settled(await self.find(principal, namespace, name))
            if found is not None:
                return found, False
            try:
                return await make(), True
            except NameTaken:
                until = min(until, time.monotonic() + self._wait_s)
            if time.monotonic() >= until:
                raise DeadlineExceeded(f"{what} took longer than {self._wait_s:g} s")
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _settled(self, sandbox: Sandbox | None) -> Sandbox | None:
        """As it is once nothing is under way with it; None when it has ended then."""
        pause_s = LOOK_AGAIN_S
        while sandbox is not None and sandbox.state in MAKING:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_AGAIN_S_MAX)
            sandbox = await self._records.get_sandbox(sandbox.id)
        return None if sandbox is None or (sandbox.ended and not sandbox.may_wake) else sandbox


def check_named(name: str | None, namespace: str | None) -> None:
    """InvalidInput for a name that is to be one of a kind and is none, or could be taken for an id."""
    if namespace is None:
        return
    for field, text in (("namespace", namespace), ("name", name)):
        if text is None or not 0 < len(text) <= CHARS_MAX or not text.isprintable() or "/" in text:
            raise InvalidInput(f"{field} must be 1 to {CHARS_MAX} printable characters without '/'", field=field)
    if SANDBOX_ID.match(name or ""):
        raise InvalidInput("name must not look like an id", field="name")
