"""Which name servers sandboxes get, from which files of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.runtimes.local.network_resolvers import resolvers


def write(folder: Path, name: str, *servers: str) -> str:
    path = folder / name
    path.write_text("# comment\nsearch example.org\n" + "".join(f"nameserver {server}\n" for server in servers))
    return str(path)


def test_the_host_s_name_servers_are_used_also_private_ones(tmp_path: Path) -> None:
    first = write(tmp_path, "a", "10.0.0.2", "9.9.9.9", "10.0.0.2")
    assert resolvers(["1.1.1.1"], [first]) == ["10.0.0.2", "9.9.9.9"]


def test_a_resolver_on_loopback_sends_to_the_next_file(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a", "127.0.0.53"), write(tmp_path, "b", "192.168.1.1")
    assert resolvers(["1.1.1.1"], [first, second]) == ["192.168.1.1"]


@pytest.mark.parametrize(
    "useless", ["127.0.0.53", "127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1%eth0", "x"]
)
def test_without_a_usable_one_the_fallback_is_taken(tmp_path: Path, useless: str) -> None:
    assert resolvers(["1.1.1.1", "8.8.8.8"], [write(tmp_path, "a", useless)]) == ["1.1.1.1", "8.8.8.8"]


def test_files_that_are_missing_or_odd_are_passed_over(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(b"nameserver\nnameserver 1.2.3\n\xff\xfe nameserver 5.5.5.5\n")
    assert resolvers(["1.1.1.1"], [str(tmp_path / "none"), str(odd), str(tmp_path)]) == ["1.1.1.1"]


def test_no_more_than_the_c_library_reads(tmp_path: Path) -> None:
    many = [f"9.9.9.{number}" for number in range(9)]
    assert resolvers([], [write(tmp_path, "a", *many)]) == many[:3]
    assert resolvers(many, []) == many[:3]
