"""The netlink wire format and a blocking socket that speaks it: attributes, requests, acknowledgements, dumps.

`nftables` and `network` build on it inside the node, so it imports next to nothing. Numbers are of the kernel's
uapi headers linux/netlink.h; everything is in host byte order unless a name says otherwise.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ROUTE = 0  # protocols
NETFILTER = 12

REQUEST, ACK = 0x1, 0x4  # flags of a request
CREATE, EXCLUSIVE, APPEND = 0x400, 0x200, 0x800
DUMP = 0x300
_DUMP_INTERRUPTED = 0x10  # flags of an answer
_ANSWER_CAPPED, _ANSWER_HAS_ATTRIBUTES = 0x100, 0x200

_ERROR, _DONE = 2, 3  # message types
_NESTED = 0x8000
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_EXPLANATION = 1  # NLMSGERR_ATTR_MSG
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
HEADER_BYTES = _HEADER.size
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_TIMEOUT_S = 5  # the kernel answers before send returns; this only bounds a kernel that does not
_DATAGRAM_BYTES = 64 * 1024
_DUMP_TRIES = 5


class Message:
    """One request: its type, its flags beyond REQUEST, and its body."""

    __slots__ = ("body", "flags", "kind")

    def __init__(self, kind: int, body: bytes, flags: int = 0) -> None:
        self.kind = kind
        self.body = body
        self.flags = flags


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *children: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(children))


def text(kind: int, value: str) -> bytes:
    """A string attribute, ended by a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network byte order; a negative value is written as its two's complement."""
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!Q", value))


def children(data: bytes) -> list[tuple[int, bytes]]:
    """The attributes in `data`, in order; a torn one ends the list."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + 4 <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < 4 or at + size > len(data):
            break
        found.append((kind & 0x3FFF, data[at + 4 : at + size]))
        at += (size + 3) & ~3
    return found


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data` by type; of a repeated one the last."""
    return dict(children(data))


def string(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode(errors="replace")


class Datagram:
    """Numbered requests, ready to be sent once: `data` may be patched until then."""

    __slots__ = ("data", "first", "last")

    def __init__(self, data: bytearray, first: int, last: int) -> None:
        self.data = data
        self.first = first  # sequence numbers
        self.last = last  # of the request whose acknowledgement ends the exchange


class Netlink:
    """A netlink socket in the network namespace of the caller at the time of the call. Errors are OSError."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        timeout = struct.pack("ll", _ANSWER_TIMEOUT_S, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        try:
            for option in (_CAP_ACK, _EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except OSError:  # before Linux 4.12: errors are then bare numbers
            pass

    def close(self) -> None:
        self._socket.close()

    def pack(self, messages: Sequence[Message]) -> Datagram:
        """The messages in one datagram; the kernel acknowledges the last, and each that fails."""
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(messages)
        data = bytearray()
        for sequence, message in enumerate(messages, first):
            data += self._pack(message, message.flags | (ACK if sequence == last else 0), sequence)
        return Datagram(data, first, last)

    def request(self, messages: Sequence[Message], what: str) -> None:
        """Do all messages, in order; the first failure is raised, with `what` in its text, when all were tried."""
        self.exchange(self.pack(messages), what)

    def transaction(self, begin: Message, messages: Sequence[Message], end: Message, what: str) -> None:
        """Do a batch, framed by `begin` and `end`, that the kernel does whole or not at all."""
        datagram = self.pack([begin, *messages])
        self._sequence += 1
        datagram.data += self._pack(end, end.flags, self._sequence)
        self.exchange(datagram, what)

    def exchange(self, datagram: Datagram, what: str) -> None:
        """Send what `pack` of this socket, or of another that is not used here, made; wait as `request` does."""
        self._send(datagram.data, what)
        failure: OSError | None = None
        while True:
            for kind, flags, sequence, body in self._receive(what):
                if kind != _ERROR or not datagram.first <= sequence <= datagram.last:
                    continue  # an answer to something that was given up earlier
                failure = failure or _failure(flags, body, what)
                # A batch that fails as a whole is answered under its first number, and maybe only there.
                if failure and sequence in (datagram.first, datagram.last):
                    raise failure
                if sequence == datagram.last:
                    return

    def dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        """The bodies of all objects of one kind, asked again when the set changed meanwhile."""
        for _ in range(_DUMP_TRIES):
            found, whole = self._dump_once(kind, body, what)
            if whole:
                return found
        raise OSError(errno.EINTR, f"{what}: the kernel's table kept changing while it was read")

    def ask(self, kind: int, body: bytes, what: str) -> bytes:
        """The body of the one object that is asked for."""
        self._sequence += 1
        self._send(self._pack(Message(kind, body), 0, self._sequence), what)
        while True:
            for kind_, flags, sequence, answer in self._receive(what):
                if sequence != self._sequence:
                    continue
                if kind_ == _ERROR:
                    raise _failure(flags, answer, what) or OSError(errno.EPROTO, f"{what}: odd answer")
                return answer

    @staticmethod
    def _pack(message: Message, flags: int, sequence: int) -> bytes:
        size = _HEADER.size + len(message.body)
        padding = bytes(-size % 4)
        return _HEADER.pack(size, message.kind, flags | REQUEST, sequence, 0) + message.body + padding

    def _dump_once(self, kind: int, body: bytes, what: str) -> tuple[list[bytes], bool]:
        self._sequence += 1
        self._send(self._pack(Message(kind, body), DUMP, self._sequence), what)
        found: list[bytes] = []
        whole = True
        while True:
            for kind_, flags, sequence, answer in self._receive(what):
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & _DUMP_INTERRUPTED
                if kind_ == _DONE:
                    return found, whole
                if kind_ == _ERROR:
                    raise _failure(flags, answer, what) or OSError(errno.EPROTO, f"{what}: odd answer")
                found.append(answer)

    def _send(self, datagram: bytes | bytearray, what: str) -> None:
        try:
            self._socket.send(datagram)
        except OSError as error:
            raise OSError(error.errno, f"{what}: {error.strerror}") from error

    def _receive(self, what: str) -> list[tuple[int, int, int, bytes]]:
        """The messages of one datagram: type, flags, sequence number, body."""
        try:
            data = self._socket.recv(_DATAGRAM_BYTES)
        except BlockingIOError as error:
            raise TimeoutError(errno.ETIMEDOUT, f"{what}: the kernel did not answer") from error
        found: list[tuple[int, int, int, bytes]] = []
        at = 0
        while at + _HEADER.size <= len(data):
            size, kind, flags, sequence, _port = _HEADER.unpack_from(data, at)
            if size < _HEADER.size or at + size > len(data):
                break
            found.append((kind, flags, sequence, data[at + _HEADER.size : at + size]))
            at += (size + 3) & ~3
        return found


def _failure(flags: int, body: bytes, what: str) -> OSError | None:
    """The error of an acknowledgement, with the kernel's own explanation when it gives one."""
    number = -struct.unpack_from("=i", body)[0]
    if number == 0:
        return None
    explanation = ""
    if flags & _ANSWER_HAS_ATTRIBUTES:
        echoed = _HEADER.size if flags & _ANSWER_CAPPED else struct.unpack_from("=I", body, 4)[0]
        message = attributes(body[4 + ((echoed + 3) & ~3) :]).get(_EXPLANATION)
        explanation = f" ({string(message)})" if message else ""
    return OSError(number, f"{what}: {os.strerror(number)}{explanation}")
