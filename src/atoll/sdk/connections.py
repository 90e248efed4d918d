"""How the SDK connects, over HTTP and WebSockets, waiting or awaiting: limits, timeouts, TLS, and dead peers.

`_io` and `_async_io` make the shared connections from it, `streams` its WebSockets.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypedDict, TypeVar

import httpcore2

CONNECT_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 60.0
# A pool looks at all of its connections whenever a request begins or ends: several small ones take a burst of a
# hundred requests in a third of the time that a large one needs.
REQUESTS_PER_POOL = 8
POOLS_MAX = 128
Pool = TypeVar("Pool")
# A dead peer is noticed after about 30 + 3 * 10 seconds, also while nobody sends.
SOCKET_OPTIONS: list[tuple[int, int, int]] = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


@dataclass(frozen=True, slots=True)
class Lane(Generic[Pool]):
    """A pool of connections and who uses it now; sets change in one step, so that threads may share it."""

    pool: Pool
    users: set[object] = field(default_factory=set[object])


def free_lane(lanes: list[Lane[Pool]], make: Callable[[], Pool]) -> Lane[Pool]:
    """The first with room, so that few requests share few connections; a new one when there is none."""
    for lane in lanes:
        if len(lane.users) < REQUESTS_PER_POOL:
            return lane
    if len(lanes) >= POOLS_MAX:
        return min(lanes, key=lambda lane: len(lane.users))
    lanes.append(Lane(make()))
    return lanes[-1]


class Limits(TypedDict):
    """What both kinds of httpcore2 pools take."""

    ssl_context: ssl.SSLContext | None
    max_connections: int
    keepalive_expiry: float
    socket_options: list[tuple[int, int, int]]


def limits(tls: bool) -> Limits:
    """Of one pool of connections."""
    return {
        "ssl_context": tls_context() if tls else None,
        "max_connections": REQUESTS_PER_POOL,
        "keepalive_expiry": 4.0,  # servers close idle ones after 5 s or more: never be who uses it just then
        "socket_options": SOCKET_OPTIONS,
    }


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """This machine's trusted authorities, or those of SSL_CERT_FILE; reading them takes milliseconds."""
    return httpcore2.default_ssl_context()
