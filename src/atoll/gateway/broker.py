"""Broker: HTTP of a sandbox to a host that one of its secrets is for, with the value put in for its placeholder.

TLS ends here, under an authority that this sandbox alone trusts, and begins anew to the host, which is verified.
Both sides are read and written anew by h11, so that what is odd about a request's form does not get through. No error
and no line of the log says what a request was: it may hold the value.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import socket
import ssl
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

import h11

from atoll.domain.brokering import Substitution
from atoll.domain.errors import AtollError, Conflict
from atoll.gateway.inspection import clean_host, crowded
from atoll.services.joining import HELD_BYTES, Readable, Stream, join

HEAD_BYTES_MAX = 128 * 1024
PIECE_BYTES = 65_536
HANDSHAKE_S = 10.0
IDLE_S = 300.0  # of either side, while something is awaited of it
HALF_CLOSED_S = 60.0
MASKED_BYTES_MIN = 8  # shorter values are parts of anything
_HEADING = (h11.IDLE, h11.SEND_RESPONSE)  # states in which a head comes next
ECHOES = (b"TRACE", b"TRACK")  # methods whose answer is the request, with the value in its body

Headers = list[tuple[bytes, bytes]]
Values = Callable[[], Awaitable[Sequence[Substitution]]]
Sent = Callable[[int], Awaitable[None]]


class BrokerRefused(ConnectionError):
    """The exchange cannot go on; the text tells nothing that was in it."""


class Prefixed:
    """A reader whose first bytes have been read already."""

    def __init__(self, first: bytes, reader: Readable) -> None:
        self._first = first
        self._reader = reader

    async def read(self, n: int = -1, /) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._reader.read(n)


class Passed:
    """A reader of what a program sends: `sent` agrees to each piece before it is passed on."""

    def __init__(self, reader: Readable, sent: Sent) -> None:
        self._reader = reader
        self._sent = sent

    async def read(self, n: int = -1, /) -> bytes:
        data = await self._reader.read(n)
        if data:
            await self._sent(len(data))
        return data


async def end_tls(stream: Stream, context: ssl.SSLContext) -> tuple[Stream, asyncio.Task[None]]:
    """What the program says within its TLS, and the task that carries its bytes here. BrokerRefused when the program
    does not take our certificate."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    outer_reader, outer_writer = await asyncio.open_connection(sock=ours, limit=HELD_BYTES)
    carrying = asyncio.create_task(join(stream, Stream(outer_reader, outer_writer), half_closed_s=HALF_CLOSED_S))
    reader = StreamReader(limit=HELD_BYTES, loop=loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    try:
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, theirs, ssl=context, ssl_handshake_timeout=HANDSHAKE_S
        )
    except BaseException as error:
        carrying.cancel()
        theirs.close()
        if isinstance(error, OSError):  # which TLS errors are
            raise BrokerRefused("the program did not agree to the TLS of its gateway") from None
        raise
    return Stream(reader, StreamWriter(transport, protocol, reader, loop)), carrying


async def begin_tls(reader: StreamReader, writer: StreamWriter, context: ssl.SSLContext, host: str) -> Stream:
    """Speak TLS to a host that is connected. OSError when it has no certificate of its name that is trusted."""
    try:
        await writer.start_tls(context, server_hostname=host, ssl_handshake_timeout=HANDSHAKE_S)
    except BaseException:
        writer.transport.abort()
        raise
    return Stream(reader, writer)


@dataclass(slots=True)
class _Side:
    """One side of the exchange: its connection, and what h11 knows of it."""

    stream: Stream
    http: h11.Connection
    sent: Sent | None = None

    async def event(self) -> object:
        """The next one; `h11.PAUSED` when what comes belongs to the next request."""
        while True:
            if self.http.their_state in _HEADING and crowded(self.http.trailing_data[0]):
                raise h11.RemoteProtocolError("a head with too many lines")
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            async with asyncio.timeout(IDLE_S):
                self.http.receive_data(await self.stream.reader.read(PIECE_BYTES))

    async def send(self, event: h11.Event) -> None:
        data = self.http.send(event)
        if data:
            if self.sent is not None:
                await self.sent(len(data))
            self.stream.writer.write(data)
            async with asyncio.timeout(IDLE_S):
                await self.stream.writer.drain()
        await asyncio.sleep(0)  # of small chunks thousands are read at once: the others' turn comes in between


class Exchange:
    """Requests of one connection, one after the other, to one host."""

    def __init__(self, host: str, values: Values, sent: Sent, idle_s: float | None = None) -> None:
        """`values` are asked for with each request: a connection lives longer than a secret may. `sent` agrees to each
        piece before it goes; `idle_s` is of what follows an upgrade."""
        self._host = host
        self._values = values
        self._sent = sent
        self._idle_s = idle_s
        self._substitutions: Sequence[Substitution] = ()
        self._given: list[tuple[bytes, bytes]] = []  # to the host, and what the program said in its place
        self._room = 0  # bytes of values that the request may still have

    async def run(self, program: Stream, outside: Stream) -> None:
        """Until either side is done. BrokerRefused for what is no proper HTTP/1.1, or names another host."""
        inside = _Side(program, h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX))
        beyond = _Side(outside, h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX), self._sent)
        try:
            while await self._request(inside, beyond):
                inside.http.start_next_cycle()
                beyond.http.start_next_cycle()
        except (h11.ProtocolError, TimeoutError) as error:
            if isinstance(error, h11.RemoteProtocolError) and inside.http.our_state is h11.SEND_RESPONSE:
                await _refuse(inside, 400, "this is no request that the gateway understands")
            raise BrokerRefused(f"the exchange with {self._host} broke off: {type(error).__name__}") from None

    async def _request(self, inside: _Side, beyond: _Side) -> bool:
        """Whether another one may follow."""
        request = await inside.event()
        if not isinstance(request, h11.Request):
            return False
        hosts = [value for name, value in request.headers if name == b"host"]
        if request.method == b"CONNECT" or len(hosts) != 1 or clean_host(hosts[0].decode("latin-1")) != self._host:
            await _refuse(inside, 421, f"this connection is to {self._host}")
            return False
        if request.method.upper() in ECHOES:
            await _refuse(inside, 405, "the answer would repeat the request")
            return False
        if not request.target.startswith(b"/") and request.target != b"*":  # a whole URL overrules the Host beside it
            await _refuse(inside, 400, "the target of a request is a path")
            return False
        names = [name for name, _ in request.headers]
        if b"content-length" in names and b"transfer-encoding" in names:  # one of them lies to one of its readers
            await _refuse(inside, 400, "a request has a length or is chunked, not both")
            return False
        try:
            self._substitutions = await self._values()
        except AtollError as error:
            gone = isinstance(error, Conflict)
            why = "a secret of this sandbox is gone" if gone else "the secrets cannot be read now"
            await _refuse(inside, 403 if gone else 503, why)
            return False
        await beyond.send(self._with_values(request))
        body = asyncio.create_task(_copy_body(inside, beyond))
        answer = asyncio.create_task(self._answer(inside, beyond))
        try:
            await asyncio.wait((body, answer), return_when=asyncio.FIRST_COMPLETED)
            if body.done() and not answer.done():
                body.result()
            switched = await answer
            if body.done():
                body.result()
        finally:
            for task in (body, answer):
                task.cancel()
            await asyncio.gather(body, answer, return_exceptions=True)
        if switched:
            await self._switch(inside, beyond)
            return False
        states = (inside.http.our_state, inside.http.their_state, beyond.http.our_state, beyond.http.their_state)
        return all(state is h11.DONE for state in states)

    async def _answer(self, inside: _Side, beyond: _Side) -> bool:
        """Pass the answer on; whether both sides speak another protocol from now on."""
        while True:
            event = await beyond.event()
            if isinstance(event, (h11.Response, h11.InformationalResponse)):
                chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
                headers = [
                    (name, self._masked(value))
                    for name, value in event.headers.raw_items()
                    if not (chunked and name.lower() == b"content-length")
                ]
                kind, reason = type(event), self._masked(event.reason)
                await inside.send(kind(status_code=event.status_code, headers=headers, reason=reason))
                if event.status_code == 101:
                    return True
            elif isinstance(event, h11.EndOfMessage):
                trailers = [(name, self._masked(value)) for name, value in event.headers.raw_items()]
                await inside.send(h11.EndOfMessage(headers=trailers))
                return False
            elif isinstance(event, h11.Data):
                await inside.send(event)
            else:
                raise BrokerRefused(f"{self._host} hung up")

    async def _switch(self, inside: _Side, beyond: _Side) -> None:
        """WebSockets and the like: bytes, as they come."""
        first, second = inside.http.trailing_data[0], beyond.http.trailing_data[0]
        told = Passed(Prefixed(first, inside.stream.reader), self._sent)
        program = Stream(told, inside.stream.writer)
        outside = Stream(Prefixed(second, beyond.stream.reader), beyond.stream.writer)
        await join(program, outside, half_closed_s=HALF_CLOSED_S, idle_s=self._idle_s)

    def _with_values(self, request: h11.Request) -> h11.Request:
        self._given, self._room = [], HEAD_BYTES_MAX
        target = request.target
        for one in self._substitutions:
            quoted = quote_from_bytes(one.value, safe="").encode()
            target = self._put(target, one.placeholder, quoted)
            if len(one.value) >= MASKED_BYTES_MIN:
                self._given += [(one.value, one.placeholder), (quoted, one.placeholder)]
        headers = [(name, self._with_value(name, value)) for name, value in request.headers.raw_items()]
        try:
            return h11.Request(method=request.method, target=target, headers=headers)
        except h11.LocalProtocolError:  # whose text has the value in it
            raise BrokerRefused("the value of a secret cannot stand in a header") from None

    def _with_value(self, name: bytes, value: bytes) -> bytes:
        scheme, _, coded = value.partition(b" ")
        if name.lower() in (b"authorization", b"proxy-authorization") and scheme.lower() == b"basic":
            try:
                plain = base64.b64decode(coded.strip(), validate=True)
            except binascii.Error:  # the secret may be the coded text itself
                return self._replaced(value)
            if (replaced := self._replaced(plain)) == plain:
                return value
            given = base64.b64encode(replaced)
            self._given.append((given, coded.strip()))
            return scheme + b" " + given
        return self._replaced(value)

    def _replaced(self, text: bytes) -> bytes:
        for one in self._substitutions:
            text = self._put(text, one.placeholder, one.value)
        return text

    def _put(self, text: bytes, placeholder: bytes, value: bytes) -> bytes:
        """Within bounds: a long value in place of thousands of placeholders would fill the memory."""
        self._room -= text.count(placeholder) * len(value)
        if self._room < 0:
            raise BrokerRefused("a request that is too long with the values of its secrets")
        return text.replace(placeholder, value)

    def _masked(self, text: bytes) -> bytes:
        """A host that repeats in a header what it was given does not tell it to the program."""
        for given, said in self._given:
            text = text.replace(given, said)
        return text


async def _copy_body(inside: _Side, beyond: _Side) -> None:
    while True:
        event = await inside.event()
        if not isinstance(event, (h11.Data, h11.EndOfMessage)):
            raise BrokerRefused("the program hung up in the middle of a request")
        await beyond.send(event)
        if isinstance(event, h11.EndOfMessage):
            return


async def _refuse(inside: _Side, status: int, why: str) -> None:
    text = f"atoll: {why}\n".encode()
    headers: Headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await inside.send(h11.Response(status_code=status, headers=headers))
    await inside.send(h11.Data(data=text))
    await inside.send(h11.EndOfMessage())
