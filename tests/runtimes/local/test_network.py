"""The network of a node: two beside each other, what is left of one, its links, ranges and tables."""

from __future__ import annotations

import errno
import os
import socket
import time

import pytest

from atoll.runtimes.local import network_links as links
from atoll.runtimes.local import nftables as nft
from atoll.runtimes.local.network import SLOTS, Network, loopback_up
from atoll.runtimes.local.network_claims import Claims
from tests.runtimes.local import planted
from tests.runtimes.local.planted import (
    PUBLIC,
    Sandbox,
    World,
    dropped,
    read_sysctl,
    wait_for,
    without_policy,
    write_sysctl,
)

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")]


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


def test_what_a_sandbox_sends_is_counted_of_each_apart_dropped_packets_too(
    world: World, network: Network, alice: Sandbox
) -> None:
    bob = world.sandbox(network, 2)
    before, bobs = network.sent_bytes(1), network.sent_bytes(2)
    alice.udp(PUBLIC)
    once = network.sent_bytes(1) - before
    assert once > 28, "a header and more"
    alice.udp(bob.address)
    assert network.sent_bytes(1) > before + once
    assert network.sent_bytes(2) == bobs
    with pytest.raises(OSError, match="looking at the link att9") as raised:
        network.sent_bytes(9)
    assert raised.value.errno == errno.ENODEV


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
