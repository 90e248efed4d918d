"""Network of the sandboxes that may reach the internet: one link each, and one packet filter table for all.

The node calls it, as root: `start` once, `prepare` and `attach` for each sandbox, `stop` when the server goes for
good; the sandbox's own child calls `configure_inside`, or `loopback_up`, before it gives up its privileges.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

from atoll.runtimes.local import network_links as links
from atoll.runtimes.local import network_rules
from atoll.runtimes.local.netlink import HEADER_BYTES, ROUTE, Datagram, Netlink
from atoll.runtimes.local.network_claims import Claims, default_path
from atoll.runtimes.local.nftables import Nftables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_RANGE = "100.64.0.0/10"  # shared address space (RFC 6598): not used by home and office networks
BLOCK_BITS = 16  # a server's share of the range: 32,768 sandboxes of two addresses each
SLOTS = 1 << (31 - BLOCK_BITS)
MTU_MAX_BYTES = 1500
MTU_MIN_BYTES = 576

_IPV4_SYSCTL = "/proc/sys/net/ipv4"
_IPV6_SYSCTL = "/proc/sys/net/ipv6"
_PREFIX_LENGTH_MAX = 10  # and five digits: an interface name has at most 15 characters
_NAME_LENGTH_MAX = 64
_OUR_INDEXES = 0x40000000  # interface numbers from here on, which the kernel reaches last when it counts
_OUR_GROUPS = 0x61740000
_PREPARED_MAX = 1024
_OWNER_TIMEOUT_S = 0.5
_OWNER_POLL_S = 0.02


class Network:
    """The network of one server's sandboxes. Not for use by several threads. Errors are OSError with a clear text.

    name: of the packet filter table, unique on the machine. prefix: of the interface names, letters and digits,
    ends with a letter, at most 10 characters; two servers' prefixes must not begin with one another.
    resolvers: IPv4 addresses that may be asked on port 53 even where they lie in a forbidden range.
    new_connections_per_s, connections, bytes_per_s (each way): of each sandbox; zero means no limit.
    mtu_bytes: that of the way out, at most 1500, when not given. claims_path: a file that all servers share.
    """

    def __init__(
        self,
        name: str,
        prefix: str,
        *,
        resolvers: Sequence[str] = (),
        address_range: str = DEFAULT_RANGE,
        mtu_bytes: int | None = None,
        new_connections_per_s: int = 500,
        connections: int = 8192,
        bytes_per_s: int = 0,
        claims_path: str | None = None,
    ) -> None:
        self.name = _checked_name(name)
        self.prefix = _checked_prefix(prefix)
        self.resolvers = tuple(_checked_address(address) for address in resolvers)
        self._range = _parse_network(address_range)
        if self._range[1] > BLOCK_BITS:
            raise OSError(errno.EINVAL, f"the address range {address_range} is smaller than a /{BLOCK_BITS}")
        self._mtu_bytes = mtu_bytes or 0
        self._new_connections_per_s = new_connections_per_s
        self._connections = connections
        self._bytes_per_s = bytes_per_s
        self._claims_path = claims_path or default_path()
        self._block = 0  # the first address of ours, as a number; 0 before `start`
        self._forwarding = False
        self._ipv6 = os.path.exists(_IPV6_SYSCTL)
        self._prepared: dict[int, tuple[Datagram, int, Datagram]] = {}
        self._route = Netlink(ROUTE)
        self._open_filter: Nftables | None = None

    def close(self) -> None:
        """Let go of the sockets; links, rules and settings stay."""
        self._route.close()
        if self._open_filter is not None:
            self._open_filter.close()

    @property
    def _filter(self) -> Nftables:
        """Opened with its first use: a kernel without a packet filter still makes sandboxes without a network."""
        if self._open_filter is None:
            self._open_filter = Nftables()
        return self._open_filter

    # What all sandboxes share

    def start(self) -> None:
        """Write the packet filter table, or write it anew; sandboxes that are attached stay so.

        PermissionError when a setting of the host would undermine it, or another process owns the table;
        FileExistsError when another server has the prefix.
        """
        _check_settings()
        with Claims(self._claims_path) as claims:
            self._forget_dead(claims)
            self._block = self._claim_block(claims)
            claims.save()
            self._tolerate(links.swallow(self._block, BLOCK_BITS), "reserving addresses", errno.EEXIST)
            self._write_table()
        if not self._mtu_bytes:
            self._mtu_bytes = self._uplink_mtu_bytes()

    def stop(self) -> None:
        """Remove every link, rule and route of this server, and restore IP forwarding if no other server is left.

        Works without `start` and after a crash; a second call does nothing.
        """
        with Claims(self._claims_path) as claims:
            _, block = claims.servers.pop(self.name, ("", ""))
            if block:
                first, bits = _parse_network(block)
                self._tolerate(links.delete_group(_group(first)), "removing links", errno.ENODEV)
                self._tolerate(links.delete_swallow(first, bits), "releasing addresses", errno.ESRCH)
            for slot in self.list_links():
                self.detach(slot)
            try:
                self._filter.delete(self.name)
                self._forget_dead(claims)
            except OSError as error:
                if error.errno != errno.EPROTONOSUPPORT:  # this kernel has no packet filter, so no table of ours
                    raise
            if not claims.servers and claims.forwarding_before is not None:
                _write_sysctl("ip_forward", claims.forwarding_before)
                claims.forwarding_before = None
            claims.save()
        self._block = 0
        self._forwarding = False
        self._prepared.clear()

    def refresh(self) -> bool:
        """Whether the table was still there; if somebody flushed it, it is written again. Cheap: call it often."""
        if self.name in self._filter.tables():
            return True
        self.start()
        return False

    def counters(self) -> dict[str, tuple[int, int]]:
        """Packets and bytes dropped since `start`, by reason: "private", "link-local", "spoofed", "host", ..."""
        return self._filter.counters(self.name)

    # What each sandbox has

    def link_name(self, slot: int) -> str:
        if not 0 <= slot < SLOTS:
            raise OSError(errno.EINVAL, f"slot {slot} is not one of 0 to {SLOTS - 1}")
        return f"{self.prefix}{slot}"

    def addresses(self, slot: int) -> tuple[str, str]:
        """(host's end, sandbox's end) of the slot's link, a function of the slot alone."""
        if not self._block:
            raise OSError(errno.ENOTCONN, f"the network {self.name} is not started")
        return _address_text(self._block + 2 * slot), _address_text(self._block + 2 * slot + 1)

    def prepare(self, slot: int) -> None:
        """Spell out the slot's requests before the fork: the memory that this touches is not copied after it."""
        if len(self._prepared) < _PREPARED_MAX:
            self._prepared[slot] = self._spell_out(slot)

    def attach(self, slot: int, pid: int) -> dict[str, str]:
        """Give the network namespace of process `pid` a link; its child still has to call `configure_inside`.

        Returns {"link", "address", "gateway"}. A link that a crash left under this slot is replaced.
        ProcessLookupError when the process is gone; nothing remains after an error.
        """
        name = self.link_name(slot)
        gateway, address = self.addresses(slot)
        self._enable_forwarding()
        prepared = self._prepared.pop(slot, None)
        try:
            self._make_link(name, pid, prepared or self._spell_out(slot))
        except FileExistsError:
            self.detach(slot)
            self._make_link(name, pid, self._spell_out(slot))
        return {"link": name, "address": address, "gateway": gateway}

    def configure_inside(self, slot: int) -> None:
        """Bring up loopback, address and default route: in the new namespace, after `attach`, with CAP_NET_ADMIN."""
        _, _, inside = self._prepared.get(slot) or self._spell_out(slot)
        netlink = Netlink(ROUTE)
        try:
            netlink.exchange(inside, "configuring the sandbox's network")
        finally:
            netlink.close()

    def detach(self, slot: int) -> None:
        """Remove the slot's link, both ends; no error when there is none.

        It waits for the kernel, up to tens of milliseconds. The kernel does the same by itself, and without anybody
        waiting, soon after the last process of the sandbox is gone: so take slots again in the order of their end.
        """
        name = self.link_name(slot)
        self._tolerate(links.delete_link(name), f"removing the link {name}", errno.ENODEV)

    def sent_bytes(self, slot: int) -> int:
        """What the sandbox has sent into its link, dropped or not. OSError (ENODEV) when there is none."""
        name = self.link_name(slot)
        entry = self._route.ask(links.LIST_LINKS, links.link_named(name), f"looking at the link {name}")
        return links.Link(entry).received_bytes

    def list_links(self) -> list[int]:
        """The slots that have a link, in order, whoever made it."""
        slots: list[int] = []
        for entry in self._route.dump(links.LIST_LINKS, links.all_links(), "listing links"):
            name = links.Link(entry).name
            number = name[len(self.prefix) :]
            if name.startswith(self.prefix) and number.isdecimal() and int(number) < SLOTS:
                slots.append(int(number))
        return sorted(slots)

    # How

    def _spell_out(self, slot: int) -> tuple[Datagram, int, Datagram]:
        """What makes the slot's link, where in it the process id goes, and what configures the inner end."""
        gateway, address = self.addresses(slot)
        index = _OUR_INDEXES | ((self._block >> 1) + slot) & (_OUR_INDEXES - 1)
        pair = links.make_pair(
            self.link_name(slot), index, number=slot, group=_group(self._block), mtu_bytes=self._mtu_bytes
        )
        here = [links.link_up(index), links.give_address(index, gateway)]
        there = [links.link_up(links.INSIDE_INDEX), links.give_address(links.INSIDE_INDEX, address)]
        if self._ipv6 and self._mtu_bytes >= links.IPV6_MTU_MIN_BYTES:
            here.insert(0, links.no_ipv6_address(index))
            there.insert(0, links.no_ipv6_address(links.INSIDE_INDEX))
        there.insert(0, links.link_up(links.LOOPBACK_INDEX))
        there.append(links.default_route(links.INSIDE_INDEX, gateway))
        pid_at = HEADER_BYTES + len(pair.body) - 4
        return self._route.pack([pair, *here]), pid_at, self._route.pack(there)

    def _make_link(self, name: str, pid: int, prepared: tuple[Datagram, int, Datagram]) -> None:
        datagram, pid_at, _ = prepared
        struct.pack_into("=I", datagram.data, pid_at, pid)
        try:
            self._route.exchange(datagram, f"making the link {name}")
        except FileExistsError:
            raise
        except OSError:
            self._tolerate(links.delete_link(name), f"removing the link {name}", errno.ENODEV)
            raise

    def _tolerate(self, message: links.Message, what: str, harmless: int) -> None:
        """Do it; an error that says that it was done already is none."""
        try:
            self._route.request([message], what)
        except OSError as error:
            if error.errno != harmless:
                raise

    def _write_table(self) -> None:
        """A node that was killed owns its table until the children that it was just making have let go of it."""
        deadline = time.monotonic() + _OWNER_TIMEOUT_S
        while True:
            try:
                return self._filter.replace(self._table())
            except PermissionError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_OWNER_POLL_S)

    def _table(self) -> network_rules.nft.Table:
        return network_rules.table(
            self.name,
            self.prefix,
            f"{_address_text(self._block)}/{BLOCK_BITS}",
            self.resolvers,
            new_connections_per_s=self._new_connections_per_s,
            connections=self._connections,
            bytes_per_s=self._bytes_per_s,
        )

    def _enable_forwarding(self) -> None:
        """Let the host forward packets, from the first link on; what it was before is noted first."""
        if self._forwarding:
            return
        with Claims(self._claims_path) as claims:
            before = _read_sysctl("ip_forward")
            if before == "0":
                claims.forwarding_before = before
                claims.save()
                _write_sysctl("ip_forward", "1")
        self._forwarding = True

    def _forget_dead(self, claims: Claims) -> None:
        """Drop the claims of servers whose table is gone, as after a reboot that spared the file."""
        tables = self._filter.tables()
        for name in list(claims.servers):
            if name != self.name and name not in tables:
                del claims.servers[name]

    def _claim_block(self, claims: Claims) -> int:
        """The block that is ours already, else the first one that no server and no route of the host uses."""
        taken: list[tuple[int, int]] = []
        for name, (prefix, block) in claims.servers.items():
            if name == self.name and prefix == self.prefix:
                return _parse_network(block)[0]
            if name == self.name or prefix.startswith(self.prefix) or self.prefix.startswith(prefix):
                raise FileExistsError(errno.EEXIST, f"the network {name} has the interface prefix {prefix}")
            taken.append(_parse_network(block))
        first, bits = self._range
        for entry in self._route.dump(links.LIST_ROUTES, links.all_ipv4_routes(), "listing routes"):
            route = links.Route(entry)
            if route.bits > bits:  # a shorter one covers all blocks alike, as the default route does
                taken.append((route.first, route.bits))
        for block in range(first, first + (1 << (32 - bits)), 1 << (32 - BLOCK_BITS)):
            if not any(_overlap(block, BLOCK_BITS, *other) for other in taken):
                claims.servers[self.name] = self.prefix, f"{_address_text(block)}/{BLOCK_BITS}"
                return block
        raise OSError(errno.EADDRINUSE, "no block of addresses is free: choose another address range")

    def _uplink_mtu_bytes(self) -> int:
        """The smallest MTU among the interfaces of the default routes, so that packets need no splitting."""
        routes = self._route.dump(links.LIST_ROUTES, links.all_ipv4_routes(), "listing routes")
        uplinks = {route.index for route in map(links.Route, routes) if route.bits == 0}
        entries = self._route.dump(links.LIST_LINKS, links.all_links(), "listing links")
        sizes = [link.mtu_bytes for link in map(links.Link, entries) if link.index in uplinks]
        return max(MTU_MIN_BYTES, min([MTU_MAX_BYTES, *sizes]))


def loopback_up() -> None:
    """Bring up the loopback interface of the caller's network namespace: all that network mode `none` needs."""
    netlink = Netlink(ROUTE)
    try:
        netlink.request([links.link_up(links.LOOPBACK_INDEX)], "bringing up the loopback interface")
    finally:
        netlink.close()


def _group(block: int) -> int:
    """The number under which a server's links can be removed together."""
    return _OUR_GROUPS | block >> (32 - BLOCK_BITS)


def _check_settings() -> None:
    for scope in ("all", "default"):
        name = f"conf/{scope}/route_localnet"
        if _read_sysctl(name) != "0":
            fix = f"sysctl -w net.ipv4.{name.replace('/', '.')}=0"
            raise PermissionError(errno.EPERM, f"the host routes packets to its loopback addresses: {fix}")


def _address_text(number: int) -> str:
    return socket.inet_ntoa(struct.pack("!I", number))


def _parse_network(network: str) -> tuple[int, int]:
    """First address, as a number, and length of "a.b.c.d/n"."""
    address, _, length = network.partition("/")
    try:
        first, bits = int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big"), int(length)
        if 0 < bits <= 32 and not first & ((1 << (32 - bits)) - 1):
            return first, bits
    except (OSError, ValueError):
        pass
    raise OSError(errno.EINVAL, f"{network!r} is not a network of IPv4 addresses")


def _overlap(first: int, bits: int, other: int, other_bits: int) -> bool:
    shift = 32 - min(bits, other_bits)
    return first >> shift == other >> shift


def _checked_name(name: str) -> str:
    word = name.replace("-", "").replace("_", "")
    if not (word.isascii() and word.isalnum() and name[0].isalpha() and len(name) <= _NAME_LENGTH_MAX):
        allowed = f"up to {_NAME_LENGTH_MAX} letters, digits, - and _, a letter first"
        raise OSError(errno.EINVAL, f"{name!r} cannot name a packet filter table: {allowed}")
    return name


def _checked_prefix(prefix: str) -> str:
    good = prefix.isascii() and prefix.isalnum() and prefix[0].isalpha() and prefix[-1].isalpha()
    if not good or not 2 <= len(prefix) <= _PREFIX_LENGTH_MAX:
        allowed = f"2 to {_PREFIX_LENGTH_MAX} letters and digits, a letter at both ends"
        raise OSError(errno.EINVAL, f"{prefix!r} cannot begin interface names: {allowed}")
    return prefix


def _checked_address(address: str) -> str:
    try:
        return socket.inet_ntoa(socket.inet_pton(socket.AF_INET, address))
    except OSError as error:
        raise OSError(errno.EINVAL, f"{address!r} is not an IPv4 address") from error


def _read_sysctl(name: str) -> str:
    with open(f"{_IPV4_SYSCTL}/{name}") as file:
        return file.read().strip()


def _write_sysctl(name: str, value: str) -> None:
    with open(f"{_IPV4_SYSCTL}/{name}", "w") as file:
        file.write(value)
