"""Pool: connections to ports of sandboxes that are kept for the next request, within bounds for a port and for all.

The proxy takes them and gives them back; a timer closes those that nobody wants, and tells which sandboxes are in use.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from atoll.domain.errors import AtollError, Conflict, NotFound
from atoll.gateway.previews.failures import Crowded, Late, Refused
from atoll.gateway.previews.limits import CarryLimits
from atoll.gateway.previews.upstream import Upstream
from atoll.services.joining import HELD_BYTES, Stream, join
from atoll.services.reaching import Reaching, Streams

_log = structlog.get_logger()

UPKEEP_S = 1.0
TOUCHED_AT_ONCE = 16
HALF_CLOSED_S = 60.0
CLOSE_S = 2.0
SHARES_MAX = 1_024  # that nobody uses any more, before they are forgotten

Port = tuple[str, int]  # a sandbox's id and one of its ports


class Share:
    """How many connections somebody has, those that are kept included."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = 0


class Kept:
    """The connections to one port. `shares` are its sandbox's and its owner's, in which they count too."""

    __slots__ = ("busy", "idle", "open", "port", "shares", "used")

    def __init__(self, port: Port, shares: tuple[Share, ...]) -> None:
        self.port = port
        self.shares = shares
        self.idle: deque[Upstream] = deque()
        self.open = 0  # those that are kept included
        self.busy = 0
        self.used = False  # since the last look

    def count(self, more: int) -> None:
        self.open += more
        for share in self.shares:
            share.open += more

    def take(self) -> Upstream | None:
        """One that carries nothing now, if any is kept."""
        while self.idle:
            found = self.idle.pop()
            if found.reusable:
                self.busy += 1
                self.used = True
                return found
            found.close()
            self.count(-1)
        return None


class Pool:
    """Between `start` and `close`."""

    def __init__(self, reaching: Reaching, limits: CarryLimits) -> None:
        self._reaching = reaching
        self._limits = limits
        self._ports: dict[Port, Kept] = {}
        self._shares: dict[str, Share] = {"": Share()}  # by sandbox and by owner; of nobody: of all together
        self._joins: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self.checks: list[Callable[[], Awaitable[None]]] = []  # what else is to be done on the timer

    def start(self) -> None:
        self._task = asyncio.create_task(self._upkeep(), name="previews")

    async def close(self) -> None:
        """Cut everything; a second call does nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for kept in self._ports.values():
            while kept.idle:
                kept.idle.pop().close()
                kept.count(-1)
        for task in self._joins:
            task.cancel()
        if self._joins:
            await asyncio.wait(self._joins, timeout=CLOSE_S)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return self._shares[""].open

    def of(self, port: Port, owner: str) -> Kept:
        kept = self._ports.get(port)
        if kept is None:
            shares = tuple(self._shares.setdefault(name, Share()) for name in ("", port[0], f"owner {owner}"))
            kept = self._ports[port] = Kept(port, shares)
        return kept

    async def connect(self, port: Port, owner: str) -> Upstream:
        """A new connection. UpstreamFailed."""
        sock = await self.socket(port, owner)
        return Upstream(sock, first_byte_s=self._limits.first_byte_s, idle_s=self._limits.idle_s)

    def give(self, kept: Kept, upstream: Upstream) -> None:
        """Back, to be kept when it may carry more."""
        kept.busy -= 1
        if upstream.reusable and self._task is not None and len(kept.idle) < self._limits.kept_per_port:
            upstream.keep()
            kept.idle.append(upstream)
        else:
            upstream.close()
            kept.count(-1)

    async def socket(self, port: Port, owner: str) -> socket.socket:
        """A connection that is the caller's; `let_go` when it is closed. UpstreamFailed."""
        kept = self.of(port, owner)
        limits = self._limits
        everybody, sandbox, owned = kept.shares
        # Nobody has more than are left for all others: however many fill the pool, one more finds room.
        left = max(1, limits.connections_max - everybody.open)
        if kept.open >= limits.connections_per_port:
            self._make_room([kept])
        elif sandbox.open >= limits.connections_per_sandbox:
            self._make_room([one for one in self._ports.values() if one.shares[1] is sandbox])
        elif owned.open >= min(limits.connections_per_owner, left):
            self._make_room([one for one in self._ports.values() if one.shares[2] is owned])
        elif everybody.open >= limits.connections_max:
            self._make_room(list(self._ports.values()))
        kept.count(1)
        kept.busy += 1
        kept.used = True
        try:
            return await self._connect(port)
        except BaseException:
            kept.count(-1)
            kept.busy -= 1
            raise

    def let_go(self, port: Port, owner: str) -> None:
        kept = self.of(port, owner)
        kept.busy -= 1
        kept.count(-1)

    def _make_room(self, among: list[Kept]) -> None:
        """Close one that is kept, of these ports. Crowded."""
        for kept in among:
            if kept.idle:
                kept.idle.popleft().close()
                kept.count(-1)
                return
        raise Crowded("too many connections to previews are open: try again")

    async def _connect(self, port: Port) -> socket.socket:
        try:
            async with asyncio.timeout(self._limits.connect_s):
                found = await self._reaching.open(*port)
        except TimeoutError:
            raise Late("the port did not answer in time") from None
        except (NotFound, Conflict) as error:
            raise Refused(error.message, ended=True) from None
        except AtollError as error:
            raise Refused(error.message) from None
        return await self._paired(found) if isinstance(found, Streams) else found

    async def _paired(self, streams: Streams) -> socket.socket:
        """Where the runtime has streams only: one end of a pair, whose other end is joined with them."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            reader, writer = await asyncio.open_connection(sock=theirs, limit=HELD_BYTES)
        except BaseException:
            ours.close()
            theirs.close()
            streams.writer.transport.abort()
            raise
        joined = join(Stream(streams.reader, streams.writer), Stream(reader, writer), half_closed_s=HALF_CLOSED_S)
        task = asyncio.create_task(joined)
        self._joins.add(task)
        task.add_done_callback(self._joins.discard)
        return ours

    async def _upkeep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(UPKEEP_S)
            try:
                self._close_old(loop.time())
                await self._touch()
                for check in self.checks:
                    await check()
            except Exception:
                _log.exception("previews.upkeep")

    def _close_old(self, now: float) -> None:
        """Those that nobody took for `kept_s`: what is taken is the newest, so the oldest lie in front."""
        for port, kept in list(self._ports.items()):
            for one in kept.idle:
                one.kept_at = one.kept_at or now
            while kept.idle and (kept.idle[0].kept_at < now - self._limits.kept_s or not kept.idle[0].reusable):
                kept.idle.popleft().close()
                kept.count(-1)
            if not kept.open and not kept.used:
                del self._ports[port]
        if len(self._shares) > 2 * len(self._ports) + SHARES_MAX:
            used = {id(share) for kept in self._ports.values() for share in kept.shares}
            self._shares = {name: one for name, one in self._shares.items() if not name or id(one) in used}

    async def _touch(self) -> None:
        """Tell each sandbox that was used that it was: what goes through a socket of ours its sidekick does not see."""
        used = {port[0] for port, kept in self._ports.items() if kept.used or kept.busy}
        for kept in self._ports.values():
            kept.used = False
        for some in batched(used, TOUCHED_AT_ONCE):
            await asyncio.gather(*map(self._reaching.touch, some), return_exceptions=True)


def batched(names: set[str], size: int) -> list[list[str]]:
    """The names, some at a time."""
    listed = sorted(names)
    return [listed[at : at + size] for at in range(0, len(listed), size)]
