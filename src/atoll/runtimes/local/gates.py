"""Gates of a sandbox: the sockets on its loopback behind which the server answers, made before anybody is inside.

Their ports are below 1024, where no program of a tenant can listen. `confine` gives a sandbox whose network is a list
of names the only network that it has: its loopback, to which the kernel leads every connection and every question.
"""

from __future__ import annotations

import socket

from atoll.runtimes.local import network_links as links
from atoll.runtimes.local import nftables as nft
from atoll.runtimes.local.netlink import ROUTE, Netlink
from atoll.runtimes.local.network import loopback_up
from atoll.runtimes.local.nftables import Nftables
from atoll.sidekick.gates import API, DNS, MODEL, MODEL_PORT, OUT
from atoll.sidekick.protocol import Refused

LOOPBACK = "127.0.0.1"
LISTED = "listed"  # the network whose way out is a list of names
PORTS = {API: 980, OUT: 981, MODEL: MODEL_PORT, DNS: 53}
API_URL = f"http://{LOOPBACK}:{PORTS[API]}"  # for its programs, which need no key there
_BACKLOG = 256
_NEW_PER_S = 500
_OPEN = 2048
_TABLE = "atoll"
_NAT, _FILTER, _COUNTED = "redirect", "drop", "new_by_source"
_OPEN_SET = "open_by_source"


def open_gates(network: str) -> dict[str, socket.socket]:
    """The sockets, once the loopback is up. Which of them a sandbox keeps is known when it is somebody's."""
    names = (API, MODEL, OUT, DNS) if network == LISTED else (API, MODEL)
    return {name: _opened(name) for name in names}


def confine() -> None:
    """In the new network namespace, with CAP_NET_ADMIN: every IPv4 address is local, and connections come to the gate.

    There is no link out: where this failed nothing would be reachable. Refused where the kernel cannot.
    """
    loopback_up()
    try:
        netlink = Netlink(ROUTE)
        try:
            netlink.request([links.everything_is_local(LOOPBACK)], "leading all addresses to the loopback")
        finally:
            netlink.close()
        table = Nftables()
        try:
            table.replace(_table())
        finally:
            table.close()
    except OSError as error:
        raise Refused("not_supported", f"lists of allowed names are not possible on this host: {error}") from None


def _opened(name: str) -> socket.socket:
    kind = socket.SOCK_DGRAM if name == DNS else socket.SOCK_STREAM
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    if name != DNS:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((LOOPBACK, PORTS[name]))
    if name != DNS:
        made.listen(_BACKLOG)
    return made


def _table() -> nft.Table:
    made = nft.Table(_TABLE)
    made.address_set(_COUNTED, size=16, timeout_s=60)
    made.address_set(_OPEN_SET, size=16)
    made.base_chain(_NAT, nft.OUTPUT, nft.PRIORITY_DESTINATION_NAT, "nat")
    made.rule(_NAT, nft.destination_in("127.0.0.0/8"), nft.accept())
    made.rule(_NAT, nft.is_ipv4(), nft.protocol_is(socket.IPPROTO_TCP), nft.redirect(PORTS[OUT]))
    made.rule(_NAT, nft.is_ipv4(), nft.destination_port(socket.IPPROTO_UDP, PORTS[DNS]), nft.redirect(PORTS[DNS]))
    made.base_chain(_FILTER, nft.OUTPUT, nft.PRIORITY_FILTER)
    new = nft.destination_port(socket.IPPROTO_TCP, PORTS[OUT]) + nft.connection_is(nft.NEW)
    over = nft.source_is_over_rate(_COUNTED, _NEW_PER_S, burst=2 * _NEW_PER_S)
    made.rule(_FILTER, new, over, nft.count(), nft.drop(), comment="rate")
    made.rule(_FILTER, new, nft.source_is_over_connections(_OPEN_SET, _OPEN), nft.count(), nft.drop(), comment="open")
    made.rule(_FILTER, nft.destination_in("127.0.0.0/8"), nft.accept())
    made.rule(_FILTER, nft.is_ipv4(), nft.count(), nft.drop(), comment="unlisted")
    return made
