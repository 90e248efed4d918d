"""A planted world for network tests: namespaces with a host, an internet and sandboxes, so that no packet leaves.

The test's own process stands in the host namespace while `World` is open; the machine's links, rules and settings
stay as they are. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from atoll.runtimes.local import network_links as links
from atoll.runtimes.local.netlink import CREATE, ROUTE, Message, Netlink, attribute, u32
from atoll.runtimes.local.network import Network, loopback_up

CLONE_NEWNET = 0x40000000
DEADLINE_S = 20
PATIENCE_S = 0.35  # after which a packet that did not come counts as dropped
PORT = 7007
DNS_PORT = 53

HOST = "203.0.113.1"  # the host's address on the internet
INTERNET = "203.0.113.2"
PUBLIC = "8.8.8.8"
METADATA = "169.254.169.254"
PUBLIC6 = "2001:db8:8::8"
METADATA6 = "fd00:ec2::254"
PRIVATE_RESOLVER = "10.0.0.2"
PLANTED = (
    PUBLIC, METADATA, PRIVATE_RESOLVER, "0.1.2.3", "10.200.0.5", "100.100.100.200", "172.16.0.5", "172.31.255.5",
    "192.0.0.170", "192.168.7.5", "198.18.0.5", "198.19.0.5", "1.1.1.1",
)  # fmt: skip
FORBIDDEN_PLANTED = [a for a in PLANTED if a not in (PUBLIC, "1.1.1.1", "0.1.2.3")]

_libc = ctypes.CDLL(None, use_errno=True)
_alive: set[int] = set()  # ends of pipes that this process alone may hold: whoever waits at the other end sees it go
_networks: list[Network] = []  # whose sockets own their tables for as long as anybody holds them


def fork() -> int:
    """Like os.fork, for children that end with the test at the latest."""
    pid = os.fork()
    if pid == 0:
        for fd in _alive:
            os.close(fd)
        _alive.clear()
        for network in _networks:
            network.close()
    return pid


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unshare_network() -> None:
    _check(_libc.unshare(CLONE_NEWNET))


def enter(namespace: int) -> None:
    _check(_libc.setns(namespace, CLONE_NEWNET))


class Namespace:
    """A network namespace, held by a child that waits, made from wherever the caller is."""

    def __init__(self, ready: Callable[[], None] | None = None) -> None:
        self._alive_read, self._alive = os.pipe()
        _alive.add(self._alive)
        told_read, told = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            try:
                unshare_network()
                os.write(told, b"1")
                os.read(self._alive_read, 1)
            finally:
                os._exit(0)
        os.close(told)
        assert os.read(told_read, 1) == b"1"
        os.close(told_read)
        self.fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if ready:
            self.run(ready)

    def run(self, action: Callable[[], Any]) -> Any:
        """What `action` returns, or raises, in a child that stands in this namespace."""
        read, write = os.pipe()
        pid = fork()
        if pid == 0:
            signal.alarm(DEADLINE_S)
            try:
                enter(self.fd)
                answer = (True, action())
            except BaseException as error:
                answer = (False, error)
            os.write(write, pickle.dumps(answer))
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as file:
            data = file.read()
        os.waitpid(pid, 0)
        assert data, "the probe ended without an answer"
        good, value = pickle.loads(data)
        if not good:
            raise value
        return value

    def serve(self, open_sockets: Callable[[], list[socket.socket]]) -> int:
        """Start a child that answers in this namespace; returns its process id."""
        told_read, told = os.pipe()
        pid = fork()
        if pid == 0:
            try:
                enter(self.fd)
                sockets = open_sockets()
                os.write(told, b"1")
                _answer(sockets, self._alive_read)
            finally:
                os._exit(0)
        os.close(told)
        assert os.read(told_read, 1) == b"1", "the server did not start"
        os.close(told_read)
        return pid

    def close(self) -> None:
        if self._alive >= 0:
            _alive.discard(self._alive)
            os.close(self._alive)
            os.close(self._alive_read)
            os.close(self.fd)
            os.waitpid(self.pid, 0)
            self._alive = -1


class World:
    """A host and an internet, joined; sandboxes join the host through the `Network` under test."""

    def __init__(self, folder: str) -> None:
        self.claims_path = f"{folder}/claims/network"
        self._children: list[int] = []
        self._namespaces: list[Namespace] = []

    def __enter__(self) -> World:
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.host = self._namespace()
            self.internet = self._namespace()
            enter(self.host.fd)
            self._join()
            self._children.append(self.internet.serve(_internet_sockets))
            self._children.append(self.host.serve(_host_sockets))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        enter(self._home)
        os.close(self._home)
        while _networks:
            _networks.pop().close()
        for namespace in self._namespaces:
            namespace.close()
        for pid in self._children:
            os.waitpid(pid, 0)

    def network(self, name: str = "atoll-test", prefix: str = "att", **options: Any) -> Network:
        network = Network(name, prefix, claims_path=self.claims_path, **options)
        _networks.append(network)
        return network

    def sandbox(self, network: Network, slot: int) -> Sandbox:
        namespace = self._namespace()
        network.attach(slot, namespace.pid)
        namespace.run(lambda: network.configure_inside(slot))
        return Sandbox(namespace, *network.addresses(slot))

    def end(self, sandbox: Sandbox) -> None:
        self._namespaces.remove(sandbox.namespace)
        sandbox.namespace.close()

    def seen(self) -> set[str]:
        """The sources whose UDP packets reached the internet."""
        return set(self.host.run(lambda: udp(INTERNET, payload=b"seen") or "").split())

    def seen_by_host(self) -> set[str]:
        return set((udp("127.0.0.1", payload=b"seen") or "").split())

    def _namespace(self) -> Namespace:
        namespace = Namespace(loopback_up)
        self._namespaces.append(namespace)
        return namespace

    def _join(self) -> None:
        """Called in the host's namespace."""
        pair = links.make_pair("up0", 77, number=1, group=1, mtu_bytes=1500)
        pair.body = pair.body[:-4] + struct.pack("=I", self.internet.pid)
        configure([pair, links.link_up(77), address("203.0.113.1", 30, 77), address("2001:db8::1", 64, 77)])
        configure([links.default_route(77, INTERNET), route6("::", 0, 77, "2001:db8::2")])
        self.internet.run(_plant)
        write_sysctl("ipv6/conf/all/forwarding", "1")
        for name in ("ip_forward", "conf/all/route_localnet", "conf/default/route_localnet"):
            write_sysctl(f"ipv4/{name}", "0")  # a new namespace begins with what the machine has


class Sandbox:
    """The network side of a sandbox: a namespace with a link."""

    def __init__(self, namespace: Namespace, gateway: str, address_: str) -> None:
        self.namespace = namespace
        self.gateway = gateway
        self.address = address_
        self.run = namespace.run

    def tcp(self, to: str, port: int = PORT) -> str | None:
        return self.run(lambda: tcp(to, port))

    def udp(self, to: str, port: int = PORT) -> str | None:
        return self.run(lambda: udp(to, port))

    def ping(self, to: str) -> bool:
        return self.run(lambda: ping(to))

    def forge(self, packet: bytes, protocol: int = 0x0800) -> None:
        """Put a packet of any content on the wire, as somebody who has taken over the inside could."""
        self.run(lambda: forge(packet, protocol))


def configure(messages: list[Message]) -> None:
    netlink = Netlink(ROUTE)
    try:
        netlink.request(messages, "planting")
    finally:
        netlink.close()


def address(text: str, bits: int, index: int) -> Message:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    raw = socket.inet_pton(family, text)
    no_duplicate_check = 0x02 if ":" in text else 0
    header = struct.pack("=BBBBI", family, bits, no_duplicate_check, 0, index)
    return Message(20, header + attribute(1, raw) + attribute(2, raw), CREATE)


def route6(to: str, bits: int, index: int, gateway: str) -> Message:
    header = struct.pack("=BBBBBBBBI", socket.AF_INET6, bits, 0, 0, 254, 4, 0, 1, 0)
    body = header + attribute(1, socket.inet_pton(socket.AF_INET6, to)) if bits else header
    body += u32(4, index)
    if gateway:
        body += attribute(5, socket.inet_pton(socket.AF_INET6, gateway))
    return Message(24, body, CREATE)


def write_sysctl(name: str, value: str) -> None:
    with open(f"/proc/sys/net/{name}", "w") as file:
        file.write(value)


def read_sysctl(name: str) -> str:
    with open(f"/proc/sys/net/{name}") as file:
        return file.read().strip()


def _plant() -> None:
    """The internet's addresses, and the way back to sandboxes, which makes a missing masquerade visible."""
    index = links.INSIDE_INDEX
    configure([links.link_up(index), address(INTERNET, 30, index), address("2001:db8::2", 64, index)])
    configure([address(a, 32, 1) for a in PLANTED if not a.startswith("0.")])
    configure([address(a, 128, 1) for a in (PUBLIC6, METADATA6)])
    configure([links.default_route(index, HOST), route6("::", 0, index, "2001:db8::1")])


def _internet_sockets() -> list[socket.socket]:
    udp_addresses = [INTERNET, *(a for a in PLANTED if not a.startswith("0.")), PUBLIC6, METADATA6]
    opened = [listen("::", PORT), listen("::", DNS_PORT)]
    for address_ in udp_addresses:
        opened += [bind(address_, PORT), bind(address_, DNS_PORT)]
    return opened


def _host_sockets() -> list[socket.socket]:
    return [listen("::", PORT), bind("::", PORT), listen("::", DNS_PORT), bind("::", DNS_PORT)]


def listen(address_: str, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6 if ":" in address_ else socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address_, port))
    server.listen(64)
    return server


def bind(address_: str, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6 if ":" in address_ else socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address_, port))
    return server


def _answer(sockets: list[socket.socket], alive: int) -> None:
    """Tell each peer its address as seen here, and who asks with "seen" all UDP sources, until the test ends."""
    selector = selectors.DefaultSelector()
    for server in sockets:
        selector.register(server, selectors.EVENT_READ)
    selector.register(alive, selectors.EVENT_READ)
    seen: set[str] = set()
    while True:
        for key, _ in selector.select():
            server = key.fileobj
            if not isinstance(server, socket.socket):
                return
            if server.type == socket.SOCK_STREAM:
                connection, peer = server.accept()
                connection.sendall(_plain(peer[0]).encode())
                connection.close()
                continue
            data, peer = server.recvfrom(2048)
            if data != b"seen":
                seen.add(_plain(peer[0]))
            with contextlib.suppress(OSError):
                server.sendto(" ".join(seen).encode() if data == b"seen" else _plain(peer[0]).encode(), peer)


def _plain(text: str) -> str:
    return text.removeprefix("::ffff:").split("%")[0]


def tcp(to: str, port: int = PORT) -> str | None:
    """What the other side says, or None when the packet vanished; refusal raises."""
    try:
        with socket.create_connection((to, port), PATIENCE_S) as connection:
            return connection.recv(100).decode()
    except TimeoutError:
        return None


def udp(to: str, port: int = PORT, payload: bytes = b"hello") -> str | None:
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_S)
        client.sendto(payload, (to, port))
        try:
            return client.recv(65_536).decode()
        except TimeoutError:
            return None


def ping(to: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as client:
        client.settimeout(PATIENCE_S)
        echo = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
        client.sendto(struct.pack("!BBHHH", 8, 0, checksum(echo), 7, 1), (to, 0))
        with contextlib.suppress(TimeoutError):
            while True:
                answer, peer = client.recvfrom(2048)
                if peer[0] == to and answer[20] == 0:
                    return True
        return False


def forge(packet: bytes, protocol: int) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((links.INSIDE_NAME, 0))
        own = wire.getsockname()[4]
        wire.send(b"\x02" + own[1:] + own + struct.pack("!H", protocol) + packet)


def udp_packet(source: str, to: str, port: int = PORT, payload: bytes = b"forged") -> bytes:
    length = 8 + len(payload)
    header = struct.pack("!HHHH", 4444, port, length, 0)
    if ":" in to:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
        summed = checksum(ends + struct.pack("!II", length, 17) + header + payload)
        header = struct.pack("!HHHH", 4444, port, length, summed or 0xFFFF)
        return struct.pack("!IHBB", 6 << 28, length, 17, 64) + ends + header + payload
    ends = socket.inet_aton(source) + socket.inet_aton(to)
    outer = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, 17, 0) + ends
    return outer[:10] + struct.pack("!H", checksum(outer)) + outer[12:] + header + payload


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def without_policy(network: Network) -> None:
    """Take the rules away and keep the links: the control that shows that the rules are what stops a packet."""
    network._filter.delete(network.name)


def dropped(network: Network, reason: str) -> int:
    return network.counters()[reason][0]


def wait_for(condition: Callable[[], object], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
