"""Open sockets that see or forge what is not one's own, and change the network by netlink."""

from __future__ import annotations

import fcntl
import socket
import struct

from prelude import attempt, libc

FAMILIES = {
    "AX25": 3, "IPX": 4, "APPLETALK": 5, "X25": 9, "KEY": 15, "PACKET": 17, "RDS": 21, "PPPOX": 24, "CAN": 29, "TIPC": 30,
    "BLUETOOTH": 31, "RXRPC": 33, "PHONET": 35, "CAIF": 37, "ALG": 38, "NFC": 39, "VSOCK": 40, "KCM": 41, "QIPCRTR": 42,
    "SMC": 43, "XDP": 44, "MCTP": 45,
}  # fmt: skip
NEVER_BUILT = {"EAFNOSUPPORT", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT"}


def opens(family: int, kind: int, protocol: int = 0) -> int:
    socket.socket(family, kind, protocol).close()
    return 1


for name, family in FAMILIES.items():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        attempt(f"AF_{name} {kind.name}", lambda f=family, k=kind: opens(f, k))
    pair = b"\0" * 8
    attempt(f"pair AF_{name}", lambda f=family: libc.socketpair(f, socket.SOCK_STREAM, 0, b"\0" * 8))
for protocol in (1, 6, 17, 255):
    attempt(f"raw {protocol}", lambda p=protocol: opens(socket.AF_INET, socket.SOCK_RAW, p))
    attempt(f"raw v6 {protocol}", lambda p=protocol: opens(socket.AF_INET6, socket.SOCK_RAW, p))
    attempt(f"pair raw {protocol}", lambda p=protocol: libc.socketpair(socket.AF_INET, socket.SOCK_RAW, p, b"\0" * 8))
attempt("old packet socket", lambda: opens(socket.AF_INET, 10, 0x300))
attempt(
    "raw with flags", lambda: opens(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 1)
)


def asks(kind: int, flags: int, body: bytes) -> int:
    """An rtnetlink request that changes something; the kernel's answer, 0 when it did."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(1)
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, flags | 5, 1, 0) + body)
        (error,) = struct.unpack_from("=i", sock.recv(4096), 16)
        if error:
            raise OSError(-error, "refused")
        return 1


NEW = 0x400 | 0x200
DUMMY = struct.pack("=HH", 8 + 4, 18) + struct.pack("=HH", 8, 1) + b"dumm"
LINK_INFO = struct.pack("=HH", 20, 18) + struct.pack("=HH", 10, 1) + b"dummy\0\0\0" + b"\0" * 4
attempt("netlink new link", lambda: asks(16, NEW, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + LINK_INFO))
attempt("netlink link up", lambda: asks(16, 0, struct.pack("=BxHiII", 0, 0, 1, 1, 1)))
ADDRESS = struct.pack("=BBBBI", 2, 8, 0, 0, 1) + struct.pack("=HH", 8, 2) + bytes([127, 9, 9, 9])
attempt("netlink new address", lambda: asks(20, NEW, ADDRESS))
ROUTE = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 4, 0, 1, 0)
attempt(
    "netlink new route",
    lambda: asks(24, NEW, ROUTE + struct.pack("=HH", 8, 1) + bytes([198, 51, 100, 1]) + struct.pack("=HHi", 8, 4, 1)),
)


def interface(request: int, data: bytes) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, request, data)
    return 1


attempt("ioctl interface flags", lambda: interface(0x8914, struct.pack("16sH14x", b"lo", 1)))
attempt(
    "ioctl interface address", lambda: interface(0x8916, struct.pack("16sHH4s8x", b"lo", 2, 0, bytes([127, 0, 0, 9])))
)
attempt("bind a low port", lambda: None)
