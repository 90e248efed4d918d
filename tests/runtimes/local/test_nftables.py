"""Packet filter tables as the kernel takes them, and as the `nft` program reads them where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.runtimes.local import network_rules
from atoll.runtimes.local import nftables as nft
from tests.runtimes.local import planted
from tests.runtimes.local.planted import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(str(tmp_path)) as made:
        yield made


@pytest.fixture
def filters(world: World) -> Iterator[nft.Nftables]:
    made = nft.Nftables()
    yield made
    made.close()


def table_that_counts_output(name: str) -> nft.Table:
    table = nft.Table(name)
    table.base_chain("input", nft.INPUT, nft.PRIORITY_FILTER)
    table.rule("input", nft.destination_in("127.0.0.0/8"), nft.count(), comment="loopback")
    table.rule("input", nft.destination_in("127.0.0.1"), nft.count(), comment="loopback")
    table.rule("input", nft.destination_in("127.0.0.2"), nft.count(), nft.drop(), comment="second")
    table.rule("input", nft.count())
    return table


def test_counters_are_summed_by_comment(filters: nft.Nftables) -> None:
    filters.replace(table_that_counts_output("counting"))
    assert filters.counters("counting") == {"loopback": (0, 0), "second": (0, 0)}
    planted.udp("127.0.0.2", payload=b"12345678")
    assert filters.counters("counting") == {"loopback": (1, 36), "second": (1, 36)}


def test_a_replaced_table_begins_anew_and_others_stay(filters: nft.Nftables) -> None:
    filters.replace(table_that_counts_output("counting"))
    filters.replace(table_that_counts_output("other"))
    planted.udp("127.0.0.1", payload=b"seen")  # and its answer
    before = filters.counters("other")
    assert before["loopback"][0] == filters.counters("counting")["loopback"][0] > 0
    filters.replace(table_that_counts_output("counting"))
    assert filters.counters("counting")["loopback"] == (0, 0)
    assert filters.counters("other") == before
    assert sorted(filters.tables()) == ["counting", "other"]


def test_a_bad_rule_changes_nothing(filters: nft.Nftables) -> None:
    filters.replace(table_that_counts_output("counting"))
    bad = table_that_counts_output("counting")
    bad.rule("no-such-chain", nft.drop())
    with pytest.raises(OSError, match="writing the packet filter table counting"):
        filters.replace(bad)
    assert set(filters.counters("counting")) == {"loopback", "second"}


def test_deleting_what_is_not_there_is_no_error(filters: nft.Nftables) -> None:
    filters.delete("none")
    filters.replace(table_that_counts_output("counting"))
    filters.delete("counting")
    assert filters.tables() == []


def test_counters_of_a_table_that_is_not_there_are_an_error_or_empty(filters: nft.Nftables) -> None:
    try:
        assert filters.counters("none") == {}
    except FileNotFoundError:
        pass


def test_kernels_that_know_no_owners_get_a_plain_table(filters: nft.Nftables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "_OWNED", 0x80)  # a flag that no kernel knows
    filters.replace(table_that_counts_output("plain"))
    assert filters.tables() == ["plain"]
    stranger = nft.Nftables()
    stranger.delete("plain")
    stranger.close()


@pytest.mark.skipif(shutil.which("nft") is None, reason="compares with what the nft program reads: not installed")
def test_the_nft_program_reads_the_rules_as_they_are_meant(filters: nft.Nftables) -> None:
    caps = {"new_connections_per_s": 5, "connections": 7, "bytes_per_s": 9}
    table = network_rules.table("atoll-x", "atx", "100.64.0.0/16", ["10.0.0.2"], **caps)
    filters.replace(table)
    said = subprocess.run(["nft", "list", "table", "inet", "atoll-x"], capture_output=True, text=True, check=True)
    for line in (
        'iifname "atx*" fib saddr . iif oif 0 counter packets 0 bytes 0 drop comment "spoofed"',
        'iifname "atx*" meta nfproto ipv6 counter packets 0 bytes 0 drop comment "ipv6"',
        "ip daddr 10.0.0.2 udp dport 53 accept",
        "ip daddr 10.0.0.2 tcp dport 53 accept",
        'ip daddr 169.254.0.0/16 counter packets 0 bytes 0 drop comment "link-local"',
        'fib daddr type local counter packets 0 bytes 0 drop comment "host"',
        'oifname "atx*" ct state established,related accept',
        "limit rate over 5/second burst 10 packets",
        "ct count over 7",
        "update @sent_by_source { ip saddr limit rate over 9 bytes/second }",
        "update @received_by_destination { ip daddr limit rate over 9 bytes/second }",
        'ip saddr 100.64.0.0/16 oifname != "atx*" masquerade',
        "type nat hook postrouting priority srcnat; policy accept;",
        "type filter hook prerouting priority raw; policy accept;",
    ):
        assert line in said.stdout
