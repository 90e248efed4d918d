"""A network of its own, with nothing in it but loopback: where unmodified clients find a server at its usual address.

Sockets that are bound in it are served from this process, and programs are started in it; it is gone once nobody has
it any more.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR = 0x8913, 0x8914, 0x8916
_UP = 1
_REQUEST = "16sH14x"  # struct ifreq with flags


@dataclass
class Elsewhere:
    """`fd` is the namespace."""

    fd: int
    listeners: list[socket.socket]

    @classmethod
    def make(cls, addresses: Sequence[tuple[str, int]]) -> Elsewhere:
        """With listeners at those addresses, which this process accepts from."""
        made: list[Elsewhere | OSError] = []
        # Only the thread leaves the machine's network, and it ends here.
        thread = threading.Thread(target=lambda: made.append(_made(addresses)))
        thread.start()
        thread.join()
        [one] = made
        if isinstance(one, OSError):
            raise one
        return one

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
        os.close(self.fd)

    async def run(self, *argv: str | Path, env: Mapping[str, str] | None = None, within_s: float = 60) -> str:
        """What a program says there, on both outputs; its failure is the test's."""
        process = await asyncio.create_subprocess_exec(
            "nsenter",
            f"--net=/proc/self/fd/{self.fd}",
            *argv,
            env={**os.environ, **(env or {})},
            pass_fds=(self.fd,),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(within_s):
                told, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        text = told.decode(errors="replace")
        assert process.returncode == 0, text
        return text


def _made(addresses: Sequence[tuple[str, int]]) -> Elsewhere | OSError:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        return OSError(number, os.strerror(number))
    listeners: list[socket.socket] = []
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _up(control, b"lo")
            hosts = dict.fromkeys(host for host, _ in addresses if not host.startswith("127."))
            for number, host in enumerate(hosts):
                name = f"lo:{number}".encode()
                fcntl.ioctl(
                    control, _SIOCSIFADDR, struct.pack("16sH2s4s8x", name, socket.AF_INET, b"", socket.inet_aton(host))
                )
        for host, port in addresses:
            listener = socket.socket()
            listener.bind((host, port))
            listener.setblocking(False)
            listeners.append(listener)
        return Elsewhere(
            os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC), listeners
        )
    except OSError as error:
        for listener in listeners:
            listener.close()
        return error


def _up(control: socket.socket, name: bytes) -> None:
    flags = struct.unpack(_REQUEST, fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack(_REQUEST, name, 0)))[1]
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_REQUEST, name, flags | _UP))
