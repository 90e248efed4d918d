"""What sandboxes may reach: the packet filter table, one for all sandboxes of a server, by interface-name prefix.

`Network.start` writes it. Everything that comes from a sandbox passes `outbound` twice, before and after the host's
own address translation, which could turn an allowed destination into another one.
"""

from __future__ import annotations

import socket

from atoll.runtimes.local import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Never reachable from a sandbox, with the name under which drops are counted. IPv6 is dropped as a whole.
FORBIDDEN = (
    ("link-local", "169.254.0.0/16"),  # the metadata services of clouds
    ("this-network", "0.0.0.0/8"),
    ("private", "10.0.0.0/8"),
    ("shared", "100.64.0.0/10"),  # the other sandboxes, and more metadata services
    ("loopback", "127.0.0.0/8"),
    ("private", "172.16.0.0/12"),
    ("protocol", "192.0.0.0/24"),
    ("private", "192.168.0.0/16"),
    ("benchmark", "198.18.0.0/15"),
    ("multicast", "224.0.0.0/4"),
    ("reserved", "240.0.0.0/4"),
)

_DNS_PORT = 53
_OUTBOUND = "outbound"
_RATES, _CONNECTIONS = "new_by_source", "open_by_source"
_SENT, _RECEIVED = "sent_by_source", "received_by_destination"
_ADDRESSES_MAX = 65_536
_RATE_ENTRY_TIMEOUT_S = 60


def table(
    name: str,
    prefix: str,
    block: str,
    resolvers: Sequence[str],
    *,
    new_connections_per_s: int,
    connections: int,
    bytes_per_s: int,
) -> nft.Table:
    """The table of a server whose links are called `prefix`* and whose sandboxes have addresses in `block`."""
    ours = nft.comes_in_by(prefix)
    made = nft.Table(name)
    made.chain(_OUTBOUND)
    _outbound(made, block, resolvers)
    made.base_chain("prerouting", nft.PREROUTING, nft.PRIORITY_RAW)
    made.rule("prerouting", ours, nft.is_ipv6(), nft.count(), nft.drop(), comment="ipv6")
    made.rule("prerouting", ours, nft.source_has_no_way_back(), nft.count(), nft.drop(), comment="spoofed")
    made.rule("prerouting", ours, nft.jump(_OUTBOUND))
    made.base_chain("input", nft.INPUT, nft.PRIORITY_FILTER)
    _allow(made, "input", resolvers, ours)
    made.rule("input", ours, nft.count(), nft.drop(), comment="host")
    made.base_chain("forward", nft.FORWARD, nft.PRIORITY_FILTER)
    _throttle(made, prefix, ours, bytes_per_s)
    _forward(made, prefix, ours)
    _cap(made, ours, new_connections_per_s, connections)
    made.rule("forward", ours, nft.jump(_OUTBOUND))
    made.base_chain("postrouting", nft.POSTROUTING, nft.PRIORITY_SOURCE_NAT, "nat")
    made.rule("postrouting", nft.source_in(block), nft.goes_out_by_another_than(prefix), nft.masquerade())
    return made


def _outbound(made: nft.Table, block: str, resolvers: Sequence[str]) -> None:
    _allow(made, _OUTBOUND, resolvers)
    for reason, network in (*FORBIDDEN, ("sandbox", block)):
        made.rule(_OUTBOUND, nft.destination_in(network), nft.count(), nft.drop(), comment=reason)
    made.rule(_OUTBOUND, nft.destination_is_local(), nft.count(), nft.drop(), comment="host")


def _allow(made: nft.Table, chain: str, resolvers: Sequence[str], first: bytes = b"") -> None:
    for address in resolvers:
        for protocol in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
            asked = nft.destination_in(address) + nft.destination_port(protocol, _DNS_PORT)
            made.rule(chain, first, asked, nft.accept())


def _forward(made: nft.Table, prefix: str, ours: bytes) -> None:
    to_ours = nft.goes_out_by(prefix)
    made.rule("forward", ours, to_ours, nft.count(), nft.drop(), comment="sandbox")
    made.rule("forward", to_ours, nft.connection_is(nft.ESTABLISHED | nft.RELATED), nft.accept())
    made.rule("forward", to_ours, nft.count(), nft.drop(), comment="unasked")


def _throttle(made: nft.Table, prefix: str, ours: bytes, bytes_per_s: int) -> None:
    """One sandbox cannot fill the line that it shares with the others and with the host, in either direction."""
    if not bytes_per_s:
        return
    for name in (_SENT, _RECEIVED):
        made.address_set(name, size=_ADDRESSES_MAX, timeout_s=_RATE_ENTRY_TIMEOUT_S)
    sent = nft.source_is_over_bytes(_SENT, bytes_per_s)
    made.rule("forward", ours, sent, nft.count(), nft.drop(), comment="sent")
    received = nft.destination_is_over_bytes(_RECEIVED, bytes_per_s)
    made.rule("forward", nft.goes_out_by(prefix), received, nft.count(), nft.drop(), comment="received")


def _cap(made: nft.Table, ours: bytes, new_connections_per_s: int, connections: int) -> None:
    """One sandbox cannot fill the connection table that it shares with the others and with the host."""
    new = ours + nft.connection_is(nft.NEW)
    if new_connections_per_s:
        made.address_set(_RATES, size=_ADDRESSES_MAX, timeout_s=_RATE_ENTRY_TIMEOUT_S)
        over = nft.source_is_over_rate(_RATES, new_connections_per_s, burst=2 * new_connections_per_s)
        made.rule("forward", new, over, nft.count(), nft.drop(), comment="rate")
    if connections:
        made.address_set(_CONNECTIONS, size=_ADDRESSES_MAX)
        over = nft.source_is_over_connections(_CONNECTIONS, connections)
        made.rule("forward", new, over, nft.count(), nft.drop(), comment="connections")
