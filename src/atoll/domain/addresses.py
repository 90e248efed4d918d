"""Which addresses belong to the internet, and which to this machine, its network or nobody: for whatever goes out on
behalf of a tenant.

Written out rather than asked of `ipaddress.is_global`, whose tables differ from one Python to the next.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The IANA registry of special-purpose addresses (RFC 6890), multicast and what was kept for the future.
_NOT_PUBLIC_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' own, and the metadata service of Alibaba
        "127.0.0.0/8",
        "168.63.129.16/32",  # a public address, behind which Azure answers its machines
        "169.254.0.0/16",  # link-local: the metadata services of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_UNICAST_V6 = IPv6Network("2000::/3")  # all that was ever given out
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols' own: Teredo, whose addresses lead to IPv4 ones, and others
        "2001:db8::/32",
        "2002::/16",  # 6to4: leads to IPv4 addresses
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether the internet, and nothing nearer, has the address."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address in _NAT64:  # how a network without IPv4 writes an IPv4 address
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _UNICAST_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def address_of(text: str) -> Address | None:
    """The address that a text is, in its one usual form; None for a name, a zone, and every other way to write one."""
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None
