"""Which name servers a sandbox may use: those of the host that a sandbox can reach, else configured public ones.

The node reads them when it starts, for the packet filter and for each sandbox's /etc/resolv.conf.
"""

from __future__ import annotations

import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HOST_FILES = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")  # the second: behind a resolver on loopback
PUBLIC = ("1.1.1.1", "8.8.8.8")
RESOLVERS_MAX = 3  # as many as the C library reads
_FILE_SIZE_LIMIT_BYTES = 64 * 1024
_UNREACHABLE = ("0.", "127.", "169.254.")  # loopback, and link-local: there the metadata service may answer


def resolvers(fallback: Sequence[str] = PUBLIC, files: Sequence[str] = HOST_FILES) -> list[str]:
    """IPv4 addresses, at most three: of the first file that names a usable one, else `fallback`."""
    for file in files:
        found = [address for address in _named_in(file) if not address.startswith(_UNREACHABLE)]
        if found:
            return found[:RESOLVERS_MAX]
    return list(fallback)[:RESOLVERS_MAX]


def _named_in(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            lines = file.read(_FILE_SIZE_LIMIT_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
    found: list[str] = []
    for words in (line.split() for line in lines):
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, words[1]))
        except OSError:  # an IPv6 address: sandboxes have no IPv6 way out
            continue
        if address not in found:
            found.append(address)
    return found
