"""Connect to Unix sockets of the host, by abstract name and by path."""

from __future__ import annotations

import os
import socket

from prelude import GIVEN, attempt


def connects(address: str | bytes) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        sock.connect(address)
        return 1


attempt("abstract", lambda: connects(b"\0" + GIVEN["abstract"].encode()))
for path in GIVEN["paths"]:
    attempt(f"path {path}", lambda path=path: connects(path))
for path in (
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/dbus/system_bus_socket",
    "/run/containerd/containerd.sock",
):
    if os.path.exists(path):
        attempt(f"path {path}", lambda path=path: connects(path))
with open("/proc/net/unix") as table:
    names = [line.split()[7] for line in table.readlines()[1:] if len(line.split()) > 7]
for name in names:
    attempt(f"listed {name}", lambda name=name: connects(b"\0" + name[1:].encode() if name[0] == "@" else name))
