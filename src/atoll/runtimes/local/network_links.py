"""The requests by which the kernel makes links, addresses and routes: the words of rtnetlink that `network` needs.

Numbers are of the kernel's headers linux/rtnetlink.h, if_link.h, if_addr.h and veth.h. Links are made under numbers
of our choice, so that one datagram can make a link and configure it.
"""

from __future__ import annotations

import socket
import struct

from atoll.runtimes.local.netlink import (
    CREATE,
    EXCLUSIVE,
    Message,
    attribute,
    attributes,
    nested,
    string,
    text,
    u32,
)

LIST_LINKS, LIST_ROUTES = 18, 26  # message types of dumps; the first also asks for one
LOOPBACK_INDEX = 1
INSIDE_NAME = "eth0"
INSIDE_INDEX = 1000  # above those of the tunnel devices that some kernels put in every new namespace
IPV6_MTU_MIN_BYTES = 1280  # the kernel keeps IPv6 off a link with a smaller one

_NEW_LINK, _DELETE_LINK, _SET_LINK = 16, 17, 19
_NEW_ADDRESS, _NEW_ROUTE, _DELETE_ROUTE = 20, 24, 25
_LINK_MAC, _LINK_NAME, _LINK_MTU, _LINK_INFO, _LINK_NETNS_PID, _LINK_FAMILIES, _LINK_GROUP = 1, 3, 4, 18, 19, 26, 27
_LINK_SEND_QUEUES, _LINK_RECEIVE_QUEUES, _LINK_COUNTERS = 31, 32, 23
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ADDRESS_MODE, _NO_ADDRESS = 8, 1  # of IPv6: make no link-local address
_ADDRESS, _LOCAL = 1, 2
_ROUTE_TO, _ROUTE_OUT, _ROUTE_GATEWAY = 1, 4, 5
_ROUTE_SOURCE = 7  # the address that packets leave under
_MAIN_TABLE, _UNICAST, _LOCAL_KIND, _BLACKHOLE = 254, 1, 2, 6
_HOST_SCOPE = 254
_OUR_ROUTES = 97  # rtm_protocol: shows whose routes these are
_UP = 1
_PAIR_BITS = 31


def make_pair(name: str, index: int, *, number: int, group: int, mtu_bytes: int) -> Message:
    """A veth pair, one end here and one in the network namespace of a process, whose id is the last four bytes."""
    # One queue at each end: the default is one for each processor, which makes links slow on large machines.
    common = u32(_LINK_MTU, mtu_bytes) + u32(_LINK_SEND_QUEUES, 1) + u32(_LINK_RECEIVE_QUEUES, 1)
    # Fixed hardware addresses, so that no rule of the host's device manager gives others to a live link.
    tail = b"at" + number.to_bytes(3, "big")
    here = text(_LINK_NAME, name) + attribute(_LINK_MAC, b"\x02" + tail) + u32(_LINK_GROUP, group) + common
    there = text(_LINK_NAME, INSIDE_NAME) + attribute(_LINK_MAC, b"\x06" + tail) + common
    peer = nested(_VETH_PEER, _link(INSIDE_INDEX) + there + u32(_LINK_NETNS_PID, 0))
    info = nested(_LINK_INFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, peer))
    return Message(_NEW_LINK, _link(index) + here + info, CREATE | EXCLUSIVE)


def delete_link(name: str) -> Message:
    return Message(_DELETE_LINK, _link() + text(_LINK_NAME, name))


def delete_group(group: int) -> Message:
    """Delete all links of a group, in about the time that one takes."""
    return Message(_DELETE_LINK, _link() + u32(_LINK_GROUP, group))


def link_up(index: int) -> Message:
    return Message(_SET_LINK, _link(index, _UP))


def no_ipv6_address(index: int) -> Message:
    """Keep the kernel from giving the link an IPv6 address of its own; before it is up."""
    mode = nested(socket.AF_INET6, attribute(_ADDRESS_MODE, bytes([_NO_ADDRESS])))
    return Message(_SET_LINK, _link(index) + nested(_LINK_FAMILIES, mode))


def give_address(index: int, address: str) -> Message:
    """One address of a pair, whose other one is then reachable by the link."""
    raw = socket.inet_aton(address)
    header = struct.pack("=BBBBI", socket.AF_INET, _PAIR_BITS, 0, 0, index)
    body = header + attribute(_LOCAL, raw) + attribute(_ADDRESS, raw)
    return Message(_NEW_ADDRESS, body, CREATE | EXCLUSIVE)


def default_route(index: int, gateway: str) -> Message:
    way = attribute(_ROUTE_GATEWAY, socket.inet_aton(gateway)) + u32(_ROUTE_OUT, index)
    return Message(_NEW_ROUTE, _route(0, _UNICAST) + way, CREATE | EXCLUSIVE)


def swallow(first: int, bits: int) -> Message:
    """A route that drops what is sent to the block, where no longer route leads to a link."""
    to = attribute(_ROUTE_TO, struct.pack("!I", first))
    return Message(_NEW_ROUTE, _route(bits, _BLACKHOLE) + to, CREATE | EXCLUSIVE)


def everything_is_local(source: str) -> Message:
    """A route by which every IPv4 address is one of this network namespace itself, reached from `source`."""
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _MAIN_TABLE, _OUR_ROUTES, _HOST_SCOPE, _LOCAL_KIND, 0)
    way = u32(_ROUTE_OUT, LOOPBACK_INDEX) + attribute(_ROUTE_SOURCE, socket.inet_aton(source))
    return Message(_NEW_ROUTE, header + way, CREATE | EXCLUSIVE)


def delete_swallow(first: int, bits: int) -> Message:
    to = attribute(_ROUTE_TO, struct.pack("!I", first))
    return Message(_DELETE_ROUTE, _route(bits, _BLACKHOLE) + to)


def all_links() -> bytes:
    return _link()


def link_named(name: str) -> bytes:
    return _link() + text(_LINK_NAME, name)


def all_ipv4_routes() -> bytes:
    return bytes([socket.AF_INET]) + bytes(11)


class Link:
    """A network interface, read from its entry in a dump."""

    def __init__(self, entry: bytes) -> None:
        parts = attributes(entry[16:])
        self.index = int(struct.unpack_from("=i", entry, 4)[0])
        self.name = string(parts.get(_LINK_NAME, b""))
        self.mtu_bytes = int(struct.unpack("=I", parts.get(_LINK_MTU, bytes(4)))[0])
        counters = parts.get(_LINK_COUNTERS, bytes(32))  # packets in and out, then bytes in and out
        self.received_bytes = int(struct.unpack_from("=Q", counters, 16)[0])


class Route:
    """An IPv4 route, read from its entry in a dump: the first address it leads to, the bits that count, the link."""

    def __init__(self, entry: bytes) -> None:
        parts = attributes(entry[12:])
        self.first = int.from_bytes(parts.get(_ROUTE_TO, b""), "big")
        self.bits = entry[1]
        self.index = int(struct.unpack("=I", parts.get(_ROUTE_OUT, bytes(4)))[0])


def _link(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, flags, flags)


def _route(bits: int, kind: int) -> bytes:
    return struct.pack("=BBBBBBBBI", socket.AF_INET, bits, 0, 0, _MAIN_TABLE, _OUR_ROUTES, 0, kind, 0)
