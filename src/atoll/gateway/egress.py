"""Egress: connections of a sandbox to the names and addresses on its list, and to nothing else.

The decision is about the resolved address, and that very address is connected to: a name that answers differently a
moment later gains nothing. Addresses inside, this host's own among them, are never reached, whatever a list says.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from atoll.domain.addresses import is_public
from atoll.domain.brokering import Substitution
from atoll.domain.egress import AllowList, allow_list
from atoll.domain.errors import Conflict, Forbidden, NotFound, Unavailable
from atoll.gateway.allowance import Allowance, Left, unbounded
from atoll.gateway.broker import PIECE_BYTES, BrokerRefused, Exchange, Passed, Prefixed, begin_tls, end_tls
from atoll.gateway.inspection import Inspected, NameRefused
from atoll.gateway.pace import Pace
from atoll.gateway.questions import AT_ONCE, PER_S, Questions
from atoll.gateway.resolver import Resolver
from atoll.gateway.synthetic import RANGE, SyntheticNames
from atoll.services.authorities import Authorities
from atoll.services.giving import Giving, NoGiving
from atoll.services.joining import HELD_BYTES, Readable, Stream, join
from atoll.services.lives import Live
from atoll.sidekick.client import GateStream
from atoll.sidekick.gates import DNS
from atoll.telemetry.metrics import Metrics

DNS_PORT = 53
CONNECT_S = 10.0  # to all of a name's addresses together
TRIES = 4
HALF_CLOSED_S = 60.0
IDLE_S = 3600.0  # in which neither side of a connection says anything
CLOSE_S = 2.0
FIRST_BYTES_S = 2.0  # in which a program that speaks HTTP has begun; where the server speaks first it says nothing
TLS_HANDSHAKE = b"\x16"
SSH_PORT = 22

Connect = Callable[[IPv4Address, int], Awaitable[tuple[StreamReader, StreamWriter]]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection leads: a name that the program asked for, or an address that it knew."""

    name: str | None
    address: IPv4Address
    port: int

    def allowed(self, allow: AllowList) -> bool:
        return allow.allows_address(self.address) if self.name is None else allow.allows_name(self.name)

    def __str__(self) -> str:
        return f"{self.name or self.address}:{self.port}"


@dataclass(slots=True)
class _Policy:
    """One sandbox's list, as it was read last, and the connections that it has let through."""

    listed: tuple[str, ...]
    allow: AllowList
    names: SyntheticNames
    allowance: Allowance
    pace: Pace = field(default_factory=lambda: Pace(PER_S, AT_ONCE))  # of its questions for names
    open: dict[asyncio.Task[None], Target] = field(default_factory=dict[asyncio.Task[None], Target])


class Egress:
    """`connect` is for tests; the usual one is a connection from this host."""

    def __init__(
        self,
        resolver: Resolver,
        connect: Connect | None = None,
        *,
        giving: Giving | None = None,
        authorities: Authorities | None = None,
        ca_file: Path | None = None,
        left: Left = unbounded,
        metrics: Metrics | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        """`giving` knows the brokered secrets, `authorities` those whom sandboxes with such trust; `ca_file`: whom
        the gateway trusts besides the host's own when it speaks for them. `left` knows the quotas of what is sent."""
        self._left = left
        self._metrics = (metrics or Metrics()).gateway
        self._idle_s = idle_s
        self._resolver = resolver
        self._giving = giving or NoGiving()
        self._authorities = authorities
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._connect = connect or _connect
        self._questions = Questions(resolver)
        self._policies: dict[str, _Policy] = {}

    async def serve(self, live: Live, stream: GateStream) -> None:
        """Until the connection, or the question, is over. Forbidden for what the list does not have, EgressSpent when
        its owner's quota is used up."""
        policy = self._policy(live)
        if stream.gate == DNS or stream.port == DNS_PORT:
            sent, turn = policy.allowance.sent, policy.pace.turn
            await self._questions.serve(stream.reader, stream.writer, lambda: policy.allow, policy.names, sent, turn)
            return
        try:
            target = _target(policy, stream)
        except (Forbidden, NotFound):
            self._metrics.refused("list")
            raise
        task = asyncio.current_task()
        assert task is not None
        policy.open[task] = target
        try:
            await policy.allowance.check()
            await self._pass(live, target, stream)
        finally:
            policy.open.pop(task, None)

    async def _pass(self, live: Live, target: Target, stream: GateStream) -> None:
        try:
            values = () if target.name is None else await self._giving.brokered(live.sandbox, target.name)
            if values:
                await self._broker(live, target, stream)
            else:
                await self._relay(live, target, stream.reader, stream.writer)
        except Conflict:
            self._metrics.refused("secret")
            raise
        except BrokerRefused:
            self._metrics.refused("request")
            raise

    def changed(self, live: Live) -> None:
        """Its list is another one: what that does not have is cut."""
        policy = self._policy(live)
        for task, target in list(policy.open.items()):
            if not target.allowed(policy.allow):
                task.cancel()

    def forget(self, sandbox_id: str) -> None:
        self._policies.pop(sandbox_id, None)

    def _policy(self, live: Live) -> _Policy:
        sandbox = live.sandbox
        listed = sandbox.spec.allow
        known = self._policies.get(sandbox.id)
        if known is not None and known.listed == listed:
            return known
        allow = allow_list(listed)
        if known is None:
            names = SyntheticNames(sandbox.id, sorted(allow.names))
            allowance = Allowance(live, self._left, self._metrics)
            known = self._policies[sandbox.id] = _Policy(listed, allow, names, allowance)
        else:
            known.listed, known.allow = listed, allow
        return known

    async def _reach(self, target: Target, tls: ssl.SSLContext | None = None) -> Stream:
        """NotFound for a name that nobody knows, Forbidden when it leads inside, Unavailable when nobody answers, or
        has no certificate of that name."""
        try:
            return await self._try(target, tls)
        except Forbidden:
            self._metrics.refused("inside")
            raise
        except (NotFound, Unavailable):
            self._metrics.refused("unreachable")
            raise

    async def _try(self, target: Target, tls: ssl.SSLContext | None) -> Stream:
        found = [target.address] if target.name is None else await self._resolver.resolve(target.name)
        addresses = [address for address in found if is_public(address) and not is_own(address)]
        if not addresses:
            raise Forbidden(f"{target} has no public address")
        try:
            async with asyncio.timeout(CONNECT_S):
                for address in addresses[:TRIES]:
                    with suppress(OSError):
                        reader, writer = await self._connect(address, target.port)
                        if tls is None:
                            return Stream(reader, writer)
                        return await begin_tls(reader, writer, tls, target.name or "")
        except TimeoutError:
            pass
        raise Unavailable(f"{target} does not answer")

    async def _relay(self, live: Live, target: Target, source: Readable, writer: StreamWriter) -> None:
        """Bytes both ways, once the first ones name nobody else."""
        outside = await self._reach(target)
        inspected: Inspected | None = None
        try:
            if target.name is not None and not self._policy(live).allow.everything:
                source = inspected = Inspected(source, lambda name: self._policy(live).allow.allows_name(name))
            program = Stream(Passed(source, self._policy(live).allowance.sent), writer)
            await join(program, outside, half_closed_s=HALF_CLOSED_S, idle_s=self._idle_s)
        finally:
            outside.writer.transport.abort()
        if inspected is not None and inspected.refused:
            self._metrics.refused("name")
            raise NameRefused(f"what was said to {target} names another host, or hides which")

    async def _broker(self, live: Live, target: Target, stream: GateStream) -> None:
        """HTTP, with TLS or without: the values are put in. What else is spoken gets none."""
        assert target.name is not None and self._authorities is not None
        first = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_BYTES_S):
                first = await stream.reader.read(PIECE_BYTES)
        source = Prefixed(first, stream.reader)
        program, carrying = Stream(source, stream.writer), None
        if first[:1] == TLS_HANDSHAKE:
            context = await asyncio.to_thread(self._authorities.context, live.sandbox.id, target.name)
            outside = await self._reach(target, await self._trusting())
            try:
                program, carrying = await end_tls(program, context)
            except BaseException:
                outside.writer.transport.abort()
                raise
        elif first[:1].isalpha() and first[:1].isupper() and target.port != SSH_PORT:
            outside = await self._reach(target)
        else:
            await self._relay(live, target, source, stream.writer)
            return
        try:
            sent = self._policy(live).allowance.sent
            await Exchange(target.name, lambda: self._values(live, target), sent, self._idle_s).run(program, outside)
        finally:
            outside.writer.transport.abort()
            if carrying is not None:
                program.writer.close()
                with suppress(TimeoutError, OSError):
                    async with asyncio.timeout(CLOSE_S):
                        await carrying
                carrying.cancel()

    async def _values(self, live: Live, target: Target) -> tuple[Substitution, ...]:
        """As they are now, for each request."""
        try:
            return await self._giving.brokered(live.sandbox, target.name or "")
        except Conflict:
            self._metrics.refused("secret")
            raise

    async def _trusting(self) -> ssl.SSLContext:
        """Made once: reading the host's authorities takes milliseconds."""
        if self._tls is None:
            made = await asyncio.to_thread(ssl.create_default_context)
            if self._ca_file is not None:
                made.load_verify_locations(self._ca_file)
            made.set_alpn_protocols(["http/1.1"])
            self._tls = made
        return self._tls


def _target(policy: _Policy, stream: GateStream) -> Target:
    """Where the program means to go, if the list has it."""
    if not stream.address or not stream.port:
        raise NotFound("a connection to nowhere")
    address = IPv4Address(stream.address)
    name = policy.names.name_of(address) if address in RANGE else None
    target = Target(name, address, stream.port)
    if (address in RANGE and name is None) or not target.allowed(policy.allow):
        raise Forbidden(f"{target} is not on the list")
    return target


def is_own(address: IPv4Address) -> bool:
    """Whether it is this host's: what is sent to one's own address leaves under that address. Nothing is sent here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), DNS_PORT))
        except OSError:
            return False  # no way leads there
        return probe.getsockname()[0] == str(address)


async def _connect(address: IPv4Address, port: int) -> tuple[StreamReader, StreamWriter]:
    return await asyncio.open_connection(str(address), port, limit=HELD_BYTES)
