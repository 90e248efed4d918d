"""Rules of the kernel's packet filter, spoken to it directly: expressions, rules, tables, counters.

`network` writes its one table with it, so that no `nft` program is needed. Numbers are of the kernel's header
linux/netfilter/nf_tables.h; a rule is a list of expressions, run from left to right until one does not match.
"""

from __future__ import annotations

import errno
import socket
import struct

from atoll.runtimes.local.netlink import (
    APPEND,
    CREATE,
    NETFILTER,
    Message,
    Netlink,
    attribute,
    attributes,
    be32,
    be64,
    children,
    nested,
    string,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Hooks of the inet family, and the places in them that the chains here take.
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = 0, 1, 2, 3, 4
PRIORITY_RAW, PRIORITY_DESTINATION_NAT, PRIORITY_FILTER, PRIORITY_SOURCE_NAT = -300, -100, 0, 100

NEW, ESTABLISHED, RELATED = 0x8, 0x2, 0x4  # connection states

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _GET_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE, _GET_RULE, _NEW_SET = 0, 1, 2, 3, 6, 7, 9
_INET = 1
_OWNED, _PERSISTENT = 0x2, 0x4
_REGISTER = 1
_EQUAL, _NOT_EQUAL = 0, 1
_META_IN_NAME, _META_OUT_NAME, _META_FAMILY, _META_PROTOCOL = 6, 7, 15, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_SOURCE_OFFSET, _DESTINATION_OFFSET, _PORT_OFFSET = 12, 16, 2  # of IPv4, and of TCP and UDP
_FIB_OIF, _FIB_TYPE = 1, 3
_FIB_SOURCE, _FIB_DESTINATION, _FIB_IN = 1, 2, 8
_TYPE_LOCAL = 2
_DROP, _ACCEPT, _JUMP = 0, 1, -3
_SET_HAS_TIMEOUT, _SET_GROWS = 0x10, 0x20
_KEY_IPV4 = 7  # nft's own number of the type, for its listings
_PORT_GIVEN = 2
_OVER = 1  # match when the limit is passed, not while it is kept
_COMMENT = 0  # kind of the user data that nft shows as a rule's comment


def _bare(name: str, *parts: bytes) -> bytes:
    return text(1, name) + nested(2, *parts)


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, _bare(name, *parts))


def _compare(value: bytes, operation: int = _EQUAL) -> bytes:
    return _expression("cmp", be32(1, _REGISTER), be32(2, operation), nested(3, attribute(1, value)))


def _meta(key: int) -> bytes:
    return _expression("meta", be32(1, _REGISTER), be32(2, key))


def _payload(header: int, offset: int, size: int) -> bytes:
    return _expression("payload", be32(1, _REGISTER), be32(2, header), be32(3, offset), be32(4, size))


def _mask(mask: bytes) -> bytes:
    zero = bytes(len(mask))
    return _expression(
        "bitwise",
        be32(1, _REGISTER),
        be32(2, _REGISTER),
        be32(3, len(mask)),
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, zero)),
    )


def _fib(result: int, flags: int) -> bytes:
    return _expression("fib", be32(1, _REGISTER), be32(2, result), be32(3, flags))


def _verdict(code: int, chain: str = "") -> bytes:
    verdict = nested(2, be32(1, code), text(2, chain)) if chain else nested(2, be32(1, code))
    return _expression("immediate", be32(1, 0), nested(2, verdict))


def comes_in_by(prefix: str) -> bytes:
    """The packet came in by an interface whose name begins so."""
    return _meta(_META_IN_NAME) + _compare(prefix.encode())


def goes_out_by(prefix: str) -> bytes:
    return _meta(_META_OUT_NAME) + _compare(prefix.encode())


def goes_out_by_another_than(prefix: str) -> bytes:
    return _meta(_META_OUT_NAME) + _compare(prefix.encode(), _NOT_EQUAL)


def is_ipv6() -> bytes:
    return _meta(_META_FAMILY) + _compare(bytes([socket.AF_INET6]))


def is_ipv4() -> bytes:
    return _meta(_META_FAMILY) + _compare(bytes([socket.AF_INET]))


def _address_in(offset: int, network: str) -> bytes:
    address, _, length = network.partition("/")
    bits = int(length or 32)
    mask = struct.pack("!I", (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF)
    load = _meta(_META_FAMILY) + _compare(bytes([socket.AF_INET])) + _payload(_NETWORK_HEADER, offset, 4)
    return load + (_mask(mask) if bits < 32 else b"") + _compare(socket.inet_aton(address))


def source_in(network: str) -> bytes:
    """The IPv4 source lies in "a.b.c.d/n"."""
    return _address_in(_SOURCE_OFFSET, network)


def destination_in(network: str) -> bytes:
    return _address_in(_DESTINATION_OFFSET, network)


def destination_port(protocol: int, port: int) -> bytes:
    """`protocol` is IPPROTO_TCP or IPPROTO_UDP."""
    return (
        _meta(_META_PROTOCOL)
        + _compare(bytes([protocol]))
        + _payload(_TRANSPORT_HEADER, _PORT_OFFSET, 2)
        + _compare(struct.pack("!H", port))
    )


def protocol_is(protocol: int) -> bytes:
    return _meta(_META_PROTOCOL) + _compare(bytes([protocol]))


def source_has_no_way_back() -> bytes:
    """The host would not send an answer to this source out by the interface that the packet came in by."""
    return _fib(_FIB_OIF, _FIB_SOURCE | _FIB_IN) + _compare(struct.pack("=I", 0))


def destination_is_local() -> bytes:
    """The destination is an address of the host itself."""
    return _fib(_FIB_TYPE, _FIB_DESTINATION) + _compare(struct.pack("=I", _TYPE_LOCAL))


def connection_is(states: int) -> bytes:
    """The packet's connection is in one of the states, given as bits."""
    load = _expression("ct", be32(1, _REGISTER), be32(2, 0))
    return load + _mask(struct.pack("=I", states)) + _compare(bytes(4), _NOT_EQUAL)


def source_is_over_rate(set_name: str, per_s: int, burst: int) -> bytes:
    """This source's packets that come here are more than so many a second; `set_name` counts them."""
    one_second, in_packets = 1, 0
    limit = _bare("limit", be64(1, per_s), be64(2, one_second), be32(3, burst), be32(4, in_packets), be32(5, _OVER))
    return _count_by(_SOURCE_OFFSET, set_name, limit, update=True)


def source_is_over_bytes(set_name: str, per_s: int) -> bytes:
    """This source's packets that come here hold more than so many bytes a second, and that much at once."""
    return _count_by(_SOURCE_OFFSET, set_name, _bytes_per_s(per_s), update=True)


def destination_is_over_bytes(set_name: str, per_s: int) -> bytes:
    """The same for a destination; `set_name` counts by that."""
    return _count_by(_DESTINATION_OFFSET, set_name, _bytes_per_s(per_s), update=True)


def _bytes_per_s(per_s: int) -> bytes:
    one_second, no_burst, in_bytes = 1, 0, 1  # the bucket holds a second's worth as it is
    return _bare("limit", be64(1, per_s), be64(2, one_second), be32(3, no_burst), be32(4, in_bytes), be32(5, _OVER))


def source_is_over_connections(set_name: str, count: int) -> bytes:
    """This source has more tracked connections than `count`; `set_name` counts them."""
    counting = _bare("connlimit", be32(1, count), be32(2, _OVER))
    return _count_by(_SOURCE_OFFSET, set_name, counting, update=False)


def _count_by(offset: int, set_name: str, counting: bytes, *, update: bool) -> bytes:
    load = _meta(_META_FAMILY) + _compare(bytes([socket.AF_INET]))
    load += _payload(_NETWORK_HEADER, offset, 4)
    return load + _expression(
        "dynset", text(1, set_name), be32(3, int(update)), be32(4, _REGISTER), nested(7, counting)
    )


def count() -> bytes:
    return _expression("counter", be64(1, 0), be64(2, 0))


def drop() -> bytes:
    return _verdict(_DROP)


def accept() -> bytes:
    return _verdict(_ACCEPT)


def jump(chain: str) -> bytes:
    return _verdict(_JUMP, chain)


def masquerade() -> bytes:
    return _expression("masq")


def redirect(port: int) -> bytes:
    """To this port of the loopback; in a chain of kind nat."""
    load = _expression("immediate", be32(1, _REGISTER), nested(2, attribute(1, struct.pack("!H", port))))
    return load + _expression("redir", be32(1, _REGISTER), be32(3, _PORT_GIVEN))


def _message(kind: int, flags: int, *parts: bytes) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, _body(_INET) + b"".join(parts), flags)


def _body(family: int, subsystem: int = 0) -> bytes:
    return struct.pack("!BBH", family, 0, subsystem)


class Table:
    """A table of the inet family, gathered here and then put in place of the old one in a single step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._parts: list[Message] = []

    def base_chain(self, name: str, hook: int, priority: int, kind: str = "filter") -> None:
        """A chain that the kernel runs for each packet at `hook`; what no rule decides is accepted."""
        place = nested(4, be32(1, hook), be32(2, priority))
        self._add(_NEW_CHAIN, text(3, name), place, be32(5, _ACCEPT), text(7, kind))

    def chain(self, name: str) -> None:
        """A chain that rules jump to."""
        self._add(_NEW_CHAIN, text(3, name))

    def address_set(self, name: str, *, size: int, timeout_s: int = 0) -> None:
        """A set that packets fill with IPv4 addresses of theirs; an entry goes `timeout_s` after its last packet."""
        flags = _SET_GROWS | (_SET_HAS_TIMEOUT if timeout_s else 0)
        parts = [text(2, name), be32(3, flags), be32(4, _KEY_IPV4), be32(5, 4)]
        parts += [nested(9, be32(1, size)), be32(10, len(self._parts) + 1)]
        if timeout_s:
            parts.append(be64(11, timeout_s * 1000))
        self._add(_NEW_SET, *parts)

    def rule(self, chain: str, *expressions: bytes, comment: str = "") -> None:
        parts = [text(2, chain), nested(4, *expressions)]
        if comment:
            said = comment.encode() + b"\0"
            parts.append(attribute(7, bytes([_COMMENT, len(said)]) + said))
        self._add(_NEW_RULE, *parts, flags=APPEND)

    def _add(self, kind: int, *parts: bytes, flags: int = 0) -> None:
        self._parts.append(_message(kind, CREATE | flags, text(1, self.name), *parts))

    def messages(self, flags: int) -> list[Message]:
        """Create if absent, delete, create anew: together that replaces whatever was there."""
        name = text(1, self.name)
        create = _message(_NEW_TABLE, CREATE, name, be32(2, flags))
        return [create, _message(_DELETE_TABLE, 0, name), create, *self._parts]


class Nftables:
    """The packet filter of the network namespace in which this object was made. Errors are OSError.

    Where the kernel can (6.9 on), tables belong to this object: nobody else changes or flushes them while it is
    open, they stay when it closes, and the next one to write a table of that name takes it over.
    """

    def __init__(self) -> None:
        self._netlink = Netlink(NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def replace(self, table: Table) -> None:
        """Put the table in place of the one of that name, in one step; its counters begin at zero."""
        what = f"writing the packet filter table {table.name}"
        try:
            self._batch(table.messages(_OWNED | _PERSISTENT), what)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self._batch(table.messages(0), what)

    def delete(self, name: str) -> None:
        """Remove the table; no error when there is none."""
        try:
            self._batch([_message(_DELETE_TABLE, 0, text(1, name))], f"removing the packet filter table {name}")
        except FileNotFoundError:
            pass

    def tables(self) -> list[str]:
        """The names of all tables of the inet family."""
        bodies = self._netlink.dump(_SUBSYSTEM << 8 | _GET_TABLE, _body(_INET), "listing packet filter tables")
        return [string(attributes(body[4:]).get(1, b"")) for body in bodies]

    def counters(self, name: str) -> dict[str, tuple[int, int]]:
        """Packets and bytes that the rules of a table counted, by comment; rules of one comment are summed."""
        request = _body(_INET) + text(1, name)
        bodies = self._netlink.dump(_SUBSYSTEM << 8 | _GET_RULE, request, f"reading the packet filter table {name}")
        counted: dict[str, tuple[int, int]] = {}
        for body in bodies:
            rule = attributes(body[4:])
            said = rule.get(7, b"")
            if string(rule.get(1, b"")) != name or said[:1] != bytes([_COMMENT]):
                continue
            packets, octets = counted.get(string(said[2:]), (0, 0))
            for more_packets, more_octets in _counts(rule.get(4, b"")):
                packets, octets = packets + more_packets, octets + more_octets
            counted[string(said[2:])] = packets, octets
        return counted

    def _batch(self, messages: Sequence[Message], what: str) -> None:
        begin, end = (Message(kind, _body(0, _SUBSYSTEM)) for kind in (_BATCH_BEGIN, _BATCH_END))
        self._netlink.transaction(begin, messages, end, what)


def _counts(expressions: bytes) -> list[tuple[int, int]]:
    """Packets and bytes of each counter among a rule's expressions."""
    found: list[tuple[int, int]] = []
    for _, element in children(expressions):
        expression = attributes(element)
        if string(expression.get(1, b"")) == "counter":
            counter = attributes(expression.get(2, b""))
            found.append((_u64(counter.get(2)), _u64(counter.get(1))))
    return found


def _u64(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")
