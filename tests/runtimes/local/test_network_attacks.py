"""What sandboxes reach and what they do not (battery N and R14), proved in planted namespaces."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from atoll.runtimes.local import nftables as nft
from atoll.runtimes.local.netlink import be32
from atoll.runtimes.local.network import Network
from tests.runtimes.local import planted
from tests.runtimes.local.planted import (
    PORT,
    PUBLIC,
    Sandbox,
    World,
    dropped,
    wait_for,
    without_policy,
    write_sysctl,
)

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")]


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
