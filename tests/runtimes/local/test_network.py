"""What sandboxes reach and what they do not, proved in planted namespaces, and that nothing of it stays behind."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll.runtimes.local import network_links as links
from atoll.runtimes.local import nftables as nft
from atoll.runtimes.local.netlink import be32
from atoll.runtimes.local.network import SLOTS, Network, loopback_up
from atoll.runtimes.local.network_claims import Claims
from tests.runtimes.local import planted
from tests.runtimes.local.planted import PORT, PUBLIC, Sandbox, World, read_sysctl, write_sysctl

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(str(tmp_path)) as made:
        yield made


@pytest.fixture
def network(world: World) -> Network:
    network = world.network(resolvers=[planted.PRIVATE_RESOLVER])
    network.start()
    return network


@pytest.fixture
def alice(world: World, network: Network) -> Sandbox:
    return world.sandbox(network, 1)


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


def test_public_addresses_are_reachable_by_tcp_udp_and_icmp(alice: Sandbox) -> None:
    assert alice.tcp(PUBLIC)
    assert alice.udp(PUBLIC)
    assert alice.ping(PUBLIC)


def test_the_internet_sees_the_host_and_not_the_sandbox(world: World, alice: Sandbox, network: Network) -> None:
    assert alice.tcp(PUBLIC) == planted.HOST
    assert alice.udp(PUBLIC) == planted.HOST
    assert world.seen() == {planted.HOST}
    without_policy(network)
    assert alice.udp(PUBLIC) == alice.address


def test_n01_metadata_addresses_are_dropped_and_counted(alice: Sandbox, network: Network) -> None:
    for address in (planted.METADATA, "100.100.100.200"):
        assert alice.tcp(address) is None
        assert alice.udp(address) is None
        assert not alice.ping(address)
    assert dropped(network, "link-local") >= 3
    assert dropped(network, "shared") >= 3
    without_policy(network)
    for address in (planted.METADATA, "100.100.100.200"):
        assert alice.tcp(address)
        assert alice.udp(address)
        assert alice.ping(address)


def test_n01_the_ipv6_metadata_address_is_dropped_and_counted(world: World, alice: Sandbox, network: Network) -> None:
    wait_for(lambda: planted.udp(planted.METADATA6))  # the neighbours have found each other
    source = "2001:db8:77::2"
    for to in (planted.METADATA6, planted.PUBLIC6):
        alice.forge(planted.udp_packet(source, to), 0x86DD)
    assert dropped(network, "ipv6") == 2
    assert source not in world.seen()
    without_policy(network)
    alice.forge(planted.udp_packet(source, planted.METADATA6), 0x86DD)
    wait_for(lambda: source in world.seen())


def test_n02_nothing_of_the_host_answers(alice: Sandbox, network: Network) -> None:
    for address in (alice.gateway, planted.HOST):
        for port in (PORT, planted.DNS_PORT):
            assert alice.tcp(address, port) is None
            assert alice.udp(address, port) is None
        assert not alice.ping(address)
    assert dropped(network, "host") >= 5  # the public address of the host
    assert dropped(network, "shared") >= 5  # the host's end of the link
    without_policy(network)
    for address in (alice.gateway, planted.HOST):
        assert alice.tcp(address)
        assert alice.udp(address)


def test_n02_a_port_that_the_host_redirects_to_itself_is_dropped(
    alice: Sandbox, network: Network, world: World
) -> None:
    with Translation(PUBLIC, alice.gateway):
        assert alice.tcp(PUBLIC) is None
        assert dropped(network, "host") >= 1
        without_policy(network)
        assert alice.tcp(PUBLIC) == alice.address


def test_n02_a_destination_that_the_host_turns_into_a_private_one_is_dropped(alice: Sandbox, network: Network) -> None:
    with Translation(PUBLIC, "10.200.0.5"):
        assert alice.tcp(PUBLIC) is None
        assert dropped(network, "private") >= 1
        without_policy(network)
        assert alice.tcp(PUBLIC) == alice.address


@pytest.mark.parametrize(("asked", "reason"), [(planted.HOST, "host"), ("10.200.0.5", "private")])
def test_n02_a_forbidden_destination_that_the_host_turns_into_a_public_one_is_dropped(
    alice: Sandbox, network: Network, asked: str, reason: str
) -> None:
    with Translation(asked, PUBLIC):
        assert alice.tcp(asked) is None
        assert dropped(network, reason) >= 1
        without_policy(network)
        assert alice.tcp(asked) == alice.address


def test_n03_the_loopback_of_the_host_is_out_of_reach_even_with_route_localnet(
    world: World, alice: Sandbox, network: Network
) -> None:
    packet = planted.udp_packet(alice.address, "127.0.0.1")
    write_sysctl("ipv4/conf/all/route_localnet", "1")
    alice.forge(packet)
    assert dropped(network, "loopback") == 1
    assert alice.address not in world.seen_by_host()
    without_policy(network)
    alice.forge(packet)
    wait_for(lambda: alice.address in world.seen_by_host())


@pytest.mark.parametrize("scope", ["all", "default"])
def test_n03_start_refuses_a_host_that_routes_to_its_loopback(world: World, scope: str) -> None:
    write_sysctl(f"ipv4/conf/{scope}/route_localnet", "1")
    with pytest.raises(PermissionError, match=rf"sysctl -w net.ipv4.conf.{scope}.route_localnet=0"):
        world.network().start()


def test_n04_sandboxes_do_not_reach_each_other(world: World, alice: Sandbox, network: Network) -> None:
    bob = world.sandbox(network, 2)
    server = bob.namespace.serve(lambda: [planted.listen("0.0.0.0", PORT), planted.bind("0.0.0.0", PORT)])
    try:
        assert alice.tcp(bob.address) is None
        assert alice.udp(bob.address) is None
        assert not alice.ping(bob.address)
        assert dropped(network, "shared") >= 3
        without_policy(network)
        assert alice.tcp(bob.address)
        assert alice.udp(bob.address)
    finally:
        world.end(bob)
        os.waitpid(server, 0)


def test_n04_neither_the_host_s_neighbours_nor_a_forged_answer_get_in(
    world: World, alice: Sandbox, network: Network
) -> None:
    """From the internet, which has a route to the sandboxes here, nothing comes that no sandbox asked for."""
    server = alice.namespace.serve(lambda: [planted.listen("0.0.0.0", PORT)])
    try:
        assert world.internet.run(lambda: planted.tcp(alice.address)) is None
        assert dropped(network, "unasked") >= 1
        without_policy(network)
        assert world.internet.run(lambda: planted.tcp(alice.address)) == planted.INTERNET
    finally:
        world.end(alice)
        os.waitpid(server, 0)


def test_n04_a_link_has_no_ipv6_address_at_either_end(alice: Sandbox, network: Network) -> None:
    def addresses() -> str:
        return Path("/proc/net/if_inet6").read_text()

    time.sleep(0.05)
    assert " eth0" not in alice.run(addresses)
    assert network.prefix not in addresses()
    assert " lo" in alice.run(addresses)


@pytest.mark.parametrize("address", planted.FORBIDDEN_PLANTED)
def test_n05_forbidden_ranges_are_dropped_for_every_protocol(alice: Sandbox, network: Network, address: str) -> None:
    assert alice.tcp(address) is None
    assert alice.udp(address) is None
    assert not alice.ping(address)
    assert sum(packets for packets, _ in network.counters().values()) >= 3
    without_policy(network)
    assert alice.udp(address)


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("0.1.2.3", "this-network"),
        ("224.0.0.251", "multicast"),
        ("255.255.255.255", "reserved"),
        ("240.1.1.1", "reserved"),
    ],
)
def test_n05_odd_destinations_are_dropped_and_counted(alice: Sandbox, network: Network, to: str, reason: str) -> None:
    alice.forge(planted.udp_packet(alice.address, to))
    assert dropped(network, reason) == 1


def test_n05_a_declared_resolver_answers_on_its_port_only(alice: Sandbox) -> None:
    resolver = planted.PRIVATE_RESOLVER
    assert alice.udp(resolver, planted.DNS_PORT) == planted.HOST
    assert alice.tcp(resolver, planted.DNS_PORT) == planted.HOST
    assert alice.udp(resolver) is None
    assert alice.tcp(resolver) is None
    assert not alice.ping(resolver)
    assert alice.udp("10.200.0.5", planted.DNS_PORT) is None


def test_n05_a_resolver_on_the_host_itself_answers_on_its_port_only(world: World) -> None:
    network = world.network(resolvers=[planted.HOST])
    network.start()
    sandbox = world.sandbox(network, 0)
    assert sandbox.udp(planted.HOST, planted.DNS_PORT) == sandbox.address
    assert sandbox.tcp(planted.HOST, planted.DNS_PORT) == sandbox.address
    assert sandbox.tcp(planted.HOST) is None
    assert sandbox.udp(planted.HOST) is None


def test_n05_the_policy_is_the_same_after_the_node_was_killed_and_started_again(world: World) -> None:
    network = world.network()
    node = os.fork()
    if node == 0:
        network.start()
        signal.pause()
    wait_for(lambda: "atoll-test" in network._filter.tables())
    os.kill(node, signal.SIGKILL)
    os.waitpid(node, 0)
    network.close()
    again = world.network()
    again.start()
    sandbox = world.sandbox(again, 5)
    again.close()
    third = world.network()
    assert sandbox.udp(PUBLIC) == planted.HOST
    assert sandbox.udp(planted.METADATA) is None
    assert dropped(third, "link-local") == 1
    third.start()
    assert third.addresses(5) == (sandbox.gateway, sandbox.address)
    assert sandbox.udp(PUBLIC) == planted.HOST
    assert sandbox.udp(planted.METADATA) is None


@pytest.mark.parametrize("kind", ["another public address", "the host's", "a neighbour's", "the gateway's"])
def test_n07_forged_sources_are_dropped_at_the_link(world: World, alice: Sandbox, network: Network, kind: str) -> None:
    source = {
        "another public address": "8.8.4.4",
        "the host's": planted.HOST,
        "a neighbour's": world.sandbox(network, 2).address,
        "the gateway's": alice.gateway,
    }[kind]
    packet = planted.udp_packet(source, PUBLIC)
    alice.forge(packet)
    assert dropped(network, "spoofed") == 1
    assert world.seen() <= {planted.HOST}
    without_policy(network)
    before = world.seen()
    alice.forge(packet)
    if kind in ("another public address", "a neighbour's"):  # the kernel refuses the host's own by itself
        wait_for(lambda: world.seen() - before == {source})


def test_r14_new_connections_of_a_sandbox_are_capped_and_a_neighbour_does_not_notice(world: World) -> None:
    network = world.network(new_connections_per_s=10, connections=0)
    network.start()
    mallory, alice = world.sandbox(network, 1), world.sandbox(network, 2)
    mallory.run(lambda: spray(PUBLIC, 200))
    assert dropped(network, "rate") >= 150
    assert alice.udp(PUBLIC)


def test_r14_open_connections_of_a_sandbox_are_capped_and_a_neighbour_does_not_notice(world: World) -> None:
    network = world.network(new_connections_per_s=0, connections=20)
    network.start()
    mallory, alice = world.sandbox(network, 1), world.sandbox(network, 2)
    mallory.run(lambda: spray(PUBLIC, 100))
    assert dropped(network, "connections") == 80
    assert alice.udp(PUBLIC)


def spray(to: str, count: int, size: int = 1) -> None:
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(bytes(size), (to, PORT))


def test_r14_what_a_sandbox_sends_is_capped_and_a_neighbour_does_not_notice(world: World) -> None:
    network = world.network(bytes_per_s=20_000)
    network.start()
    mallory, alice = world.sandbox(network, 1), world.sandbox(network, 2)
    mallory.run(lambda: spray(PUBLIC, 200, 1000))
    assert network.counters()["sent"][1] >= 100_000
    assert alice.udp(PUBLIC)


def test_r14_what_a_sandbox_receives_is_capped_and_a_neighbour_does_not_notice(world: World) -> None:
    network = world.network(bytes_per_s=20_000)
    network.start()
    mallory, alice = world.sandbox(network, 1), world.sandbox(network, 2)
    world.internet.run(lambda: spray(mallory.address, 200, 1000))
    assert network.counters()["received"][1] >= 100_000
    assert alice.udp(PUBLIC)


def test_two_servers_share_a_host_and_neither_reaches_the_other(world: World, network: Network, alice: Sandbox) -> None:
    other = world.network("atoll-other", "atu")
    other.start()
    bob = world.sandbox(other, 1)
    assert bob.address != alice.address
    assert bob.udp(PUBLIC) == alice.udp(PUBLIC) == planted.HOST
    assert bob.udp(alice.address) is None
    assert alice.udp(bob.address) is None
    assert dropped(network, "shared") == dropped(other, "shared") == 1
    other.stop()
    assert read_sysctl("ipv4/ip_forward") == "1"
    assert alice.udp(PUBLIC) == planted.HOST
    assert network.list_links() == [1]
    network.stop()
    assert read_sysctl("ipv4/ip_forward") == "0"


def test_the_last_server_restores_forwarding_also_when_it_was_not_the_first(
    world: World, network: Network, alice: Sandbox
) -> None:
    other = world.network("atoll-other", "atu")
    other.start()
    network.stop()
    assert read_sysctl("ipv4/ip_forward") == "1"
    other.stop()
    assert read_sysctl("ipv4/ip_forward") == "0"


@pytest.mark.parametrize("prefix", ["att", "a", "attx", "at"])
def test_prefixes_that_could_be_taken_for_one_another_are_refused(world: World, network: Network, prefix: str) -> None:
    with pytest.raises(OSError, match=r"prefix|begin interface names"):
        world.network("atoll-other", prefix).start()


def test_a_table_belongs_to_its_node_where_the_kernel_can(world: World, network: Network) -> None:
    stranger = nft.Nftables()
    try:
        if "atoll-test" not in stranger.tables():
            pytest.fail("the table is not there")
        release = tuple(int(part) for part in os.uname().release.split(".")[:2])
        if release < (6, 9):
            pytest.skip("tables that outlive their owner came with Linux 6.9")
        with pytest.raises(PermissionError):
            stranger.delete("atoll-test")
    finally:
        stranger.close()


def test_a_table_whose_owner_is_about_to_go_is_waited_for(world: World) -> None:
    node = os.fork()
    if node == 0:
        world.network().start()
        time.sleep(0.2)
        os._exit(0)
    network = world.network()
    wait_for(lambda: "atoll-test" in network._filter.tables())
    network.start()
    os.waitpid(node, 0)
    assert world.sandbox(network, 1).udp(PUBLIC) == planted.HOST


def test_a_flushed_table_is_noticed_and_written_again(network: Network, alice: Sandbox) -> None:
    assert network.refresh()
    without_policy(network)
    assert not network.refresh()
    assert network.refresh()
    assert alice.udp(planted.METADATA) is None


def test_stop_leaves_nothing(world: World) -> None:
    before = traces()
    network = world.network(resolvers=[planted.PRIVATE_RESOLVER])
    network.start()
    world.sandbox(network, 3)
    world.sandbox(network, 4)
    assert traces() != before
    network.stop()
    assert traces() == before
    assert not os.path.exists(world.claims_path)
    network.stop()
    assert traces() == before


def test_stop_works_for_a_node_that_crashed(world: World) -> None:
    before = traces()
    network = world.network()
    network.start()
    world.sandbox(network, 3)
    network.close()
    world.network().stop()
    assert traces() == before
    assert not os.path.exists(world.claims_path)


def test_stop_keeps_forwarding_that_was_on_before(world: World) -> None:
    write_sysctl("ipv4/ip_forward", "1")
    network = world.network()
    network.start()
    world.sandbox(network, 0)
    network.stop()
    assert read_sysctl("ipv4/ip_forward") == "1"


def test_forwarding_is_switched_on_by_the_first_sandbox_only(world: World, network: Network) -> None:
    assert read_sysctl("ipv4/ip_forward") == "0"
    world.sandbox(network, 0)
    assert read_sysctl("ipv4/ip_forward") == "1"


def traces() -> tuple[object, ...]:
    netlink = planted.Netlink(planted.ROUTE)
    filters = nft.Nftables()
    try:
        names = [links.Link(entry).name for entry in netlink.dump(links.LIST_LINKS, links.all_links(), "links")]
        routes = [
            (route.first, route.bits, route.index)
            for route in map(links.Route, netlink.dump(links.LIST_ROUTES, links.all_ipv4_routes(), "routes"))
        ]
        return sorted(names), sorted(routes), filters.tables(), read_sysctl("ipv4/ip_forward")
    finally:
        netlink.close()
        filters.close()


def test_attach_tells_the_addresses_and_the_link(world: World, network: Network) -> None:
    namespace = world._namespace()
    told = network.attach(9, namespace.pid)
    gateway, address = network.addresses(9)
    assert told == {"link": "att9", "address": address, "gateway": gateway}
    assert network.list_links() == [9]


def test_a_link_that_a_crash_left_is_replaced(world: World, network: Network, alice: Sandbox) -> None:
    new = world.sandbox(network, 1)
    assert network.list_links() == [1]
    assert new.udp(PUBLIC) == planted.HOST
    with pytest.raises(OSError):
        alice.udp(PUBLIC)


def test_the_link_goes_with_the_last_process_of_the_sandbox(world: World, network: Network, alice: Sandbox) -> None:
    world.end(alice)
    wait_for(lambda: not network.list_links())


def test_detach_removes_the_link_and_a_second_one_is_no_error(network: Network, alice: Sandbox) -> None:
    network.detach(1)
    assert network.list_links() == []
    network.detach(1)


def test_a_failed_attach_leaves_nothing(world: World, network: Network) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    with pytest.raises(ProcessLookupError, match="making the link att6"):
        network.attach(6, dead)
    assert network.list_links() == []


def test_slots_are_checked_and_the_highest_one_works(world: World, network: Network) -> None:
    for slot in (-1, SLOTS):
        with pytest.raises(OSError, match=f"slot {slot}"):
            network.attach(slot, os.getpid())
    assert world.sandbox(network, SLOTS - 1).udp(PUBLIC) == planted.HOST


def test_prepared_links_are_the_same_as_unprepared_ones(world: World, network: Network) -> None:
    network.prepare(4)
    sandbox = world.sandbox(network, 4)
    assert sandbox.udp(PUBLIC) == planted.HOST
    assert sandbox.address == network.addresses(4)[1]


def test_a_block_that_the_host_already_uses_is_left_alone(world: World) -> None:
    planted.configure([links.swallow(int.from_bytes(socket.inet_aton("100.64.5.0"), "big"), 24)])
    network = world.network()
    network.start()
    assert network.addresses(0) == ("100.65.0.0", "100.65.0.1")


def test_sandboxes_with_addresses_of_another_range_are_apart_too(world: World) -> None:
    network = world.network(address_range="198.51.0.0/16")
    network.start()
    alice, bob = world.sandbox(network, 1), world.sandbox(network, 2)
    assert alice.address == "198.51.0.3"
    assert alice.udp(PUBLIC) == planted.HOST
    assert alice.udp(bob.address) is None
    assert alice.udp("198.51.0.99") is None
    assert dropped(network, "sandbox") == 2


@pytest.mark.parametrize("address_range", ["100.64.0.0/17", "100.64.0.1/10", "100.64.0.0/x", "100.64/10", ""])
def test_ranges_that_are_too_small_or_none_are_refused(world: World, address_range: str) -> None:
    with pytest.raises(OSError, match=r"is smaller than|is not a network"):
        world.network(address_range=address_range)


def test_the_way_out_s_mtu_is_the_sandbox_s(world: World) -> None:
    planted.configure([links.Message(19, links._link(77) + planted.u32(4, 1400))])
    network = world.network()
    network.start()
    sandbox = world.sandbox(network, 0)
    assert sandbox.run(lambda: read_mtu()) == 1400


def test_a_small_mtu_keeps_ipv6_off_the_link_as_a_whole(world: World) -> None:
    network = world.network(mtu_bytes=1279)
    network.start()
    sandbox = world.sandbox(network, 0)
    assert sandbox.udp(PUBLIC) == planted.HOST
    assert not sandbox.run(lambda: os.path.exists("/proc/sys/net/ipv6/conf/eth0"))


def read_mtu() -> int:
    netlink = planted.Netlink(planted.ROUTE)
    entries = netlink.dump(links.LIST_LINKS, links.all_links(), "links")
    return next(link.mtu_bytes for link in map(links.Link, entries) if link.name == "eth0")


def test_before_start_there_are_no_addresses(world: World) -> None:
    with pytest.raises(OSError, match="not started"):
        world.network().attach(1, os.getpid())


def test_loopback_up_brings_up_loopback(world: World) -> None:
    namespace = planted.Namespace()
    try:
        with pytest.raises(OSError):
            namespace.run(lambda: planted.udp("127.0.0.1"))
        namespace.run(loopback_up)
        with pytest.raises(ConnectionRefusedError):
            namespace.run(lambda: (loopback_up(), planted.tcp("127.0.0.1")))
    finally:
        namespace.close()


@pytest.mark.parametrize("name", ["", "1a", "a b", "a" * 65, "über"])
def test_table_names_are_checked(name: str) -> None:
    with pytest.raises((OSError, IndexError)):
        Network(name, "att")


def test_claims_of_a_server_whose_table_is_gone_are_dropped(world: World, network: Network) -> None:
    with Claims(world.claims_path) as claims:
        claims.servers["atoll-dead"] = "atd", "100.99.0.0/16"
        claims.forwarding_before = "0"
        claims.save()
    network.stop()
    assert not os.path.exists(world.claims_path)


class Translation:
    """A destination translation of the host's, as container tools install them for published ports."""

    def __init__(self, public: str, private: str) -> None:
        self._ends = public, private

    def __enter__(self) -> None:
        public, private = self._ends
        immediate = nft._expression("immediate", be32(1, 1), nft.nested(2, nft.attribute(1, socket.inet_aton(private))))
        translate = nft._expression("nat", be32(1, 1), be32(2, socket.AF_INET), be32(3, 1))
        table = nft.Table("translation")
        table.base_chain("prerouting", nft.PREROUTING, -100, "nat")
        table.rule("prerouting", nft.destination_in(public), immediate, translate)
        self._filter = nft.Nftables()
        self._filter.replace(table)

    def __exit__(self, *_: object) -> None:
        self._filter.delete("translation")
        self._filter.close()


def test_a_kernel_without_a_packet_filter_has_no_table_of_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a host makes sandboxes without a network: nothing of it may fail before one is asked for."""

    def unsupported() -> nft.Nftables:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr("atoll.runtimes.local.network.Nftables", unsupported)
    network = world.network()
    with pytest.raises(OSError, match="not supported"):
        network.start()
    assert network.list_links() == []
    network.stop()
    network.close()
