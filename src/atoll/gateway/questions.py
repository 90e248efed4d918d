"""Questions for names: what a sandbox with a list is answered. Allowed names have an address, all others do not exist.

Every question comes as a stream of messages, each behind its length, as in DNS over TCP.
"""

from __future__ import annotations

import asyncio
import struct
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from atoll.domain.egress import AllowList, clean_name
from atoll.domain.errors import AtollError, NotFound
from atoll.gateway.resolver import Resolver
from atoll.gateway.synthetic import SyntheticNames

TTL_S = 30
IDLE_S = 10.0
LABELS_MAX = 40  # of a name, whose last is empty: an IPv6 address backwards has 35, and work grows with the square
PER_S = 100  # questions of one sandbox: each is read, looked up and answered where everybody is served
AT_ONCE = 500  # of those, after a pause: what installs packages asks for hundreds
_LENGTH = struct.Struct("!H")
Sent = Callable[[int], Awaitable[None]]
Turn = Callable[[], Awaitable[None]]
ONE = _LENGTH.pack(1)  # how many questions a message says that it has


async def uncounted(_size: int) -> None:
    """Without a quota."""


async def unpaced() -> None:
    """Without a bound; but of questions that lie there already many are read without a pause."""
    await asyncio.sleep(0)


class Questions:
    """`resolver` knows which of the allowed names exist."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def serve(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        allow: Callable[[], AllowList],
        names: SyntheticNames,
        sent: Sent = uncounted,
        turn: Turn = unpaced,
    ) -> None:
        """Answer until nothing comes any more. `allow` is asked with each question: lists change meanwhile; `sent` is
        told of the bytes of each that is passed on, and raises ConnectionError when none may be. Each question waits
        for its `turn`."""
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                    question = await reader.readexactly(size)
                    await turn()
                    answer = await self.answer(question, allow(), names, sent)
                    if answer is None:
                        return
                    writer.write(_LENGTH.pack(len(answer)) + answer)
                    await writer.drain()
        except (TimeoutError, IncompleteReadError, ConnectionError):
            return

    async def answer(
        self, question: bytes, allow: AllowList, names: SyntheticNames, sent: Sent = uncounted
    ) -> bytes | None:
        """None for what is no question at all."""
        if question[4:6] != ONE:
            return None
        try:
            # what else a message may hold says nothing here, and 64 KiB of it take a minute to be read
            asked = dns.message.from_wire(question, question_only=True)
            if asked.flags & dns.flags.QR or len(asked.question[0].name) > LABELS_MAX:
                return None
            told = dns.message.make_response(asked, recursion_available=True)
        except (dns.exception.DNSException, ValueError, struct.error):
            return None
        if asked.opcode() != dns.opcode.QUERY:
            told.set_rcode(dns.rcode.NOTIMP)
            return told.to_wire()
        about = asked.question[0]
        name = clean_name(_text(about.name))
        if name is None or not allow.allows_name(name) or about.rdclass != dns.rdataclass.IN:
            told.set_rcode(dns.rcode.NXDOMAIN)
            return told.to_wire()
        try:
            if about.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                await sent(len(question))  # a name says something to whoever has its zone
                await self._resolver.resolve(name)
            if about.rdtype == dns.rdatatype.A:  # of other kinds, IPv6 among them, there is nothing
                address = names.address_of(name)
                told.answer.append(dns.rrset.from_text(about.name, TTL_S, dns.rdataclass.IN, "A", str(address)))
        except NotFound:
            told.set_rcode(dns.rcode.NXDOMAIN)
        except AtollError:
            told.set_rcode(dns.rcode.SERVFAIL)
        return told.to_wire()


def _text(name: dns.name.Name) -> str:
    """Labels with other bytes than those of host names become texts that no list allows."""
    return name.to_text(omit_final_dot=True)
