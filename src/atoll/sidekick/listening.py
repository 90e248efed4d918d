"""Listening: which ports of the sandbox are listened on, told again whenever that changes; the operation `ports`."""

from __future__ import annotations

from atoll.sidekick.connection import Connection
from atoll.sidekick.protocol import RESULT, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.sidekick.loop import Timer
    from atoll.sidekick.operations import Sidekick

EVERY_S = 0.5
FOLLOWERS_MAX = 16
PORTS_MAX = 256
_TABLE_BYTES = 262_144  # sockets that listen come first
_LISTENS = b"0A"


def follow(sidekick: Sidekick, connection: Connection, _request: dict[str, Any]) -> None:
    """RESULT {ports} now and after each change, until the client has gone."""
    if sidekick.port_followers >= FOLLOWERS_MAX:
        raise Refused("unavailable", f"at most {FOLLOWERS_MAX} connections follow the ports of one sandbox")
    sidekick.port_followers += 1
    told: list[int] | None = None
    timer: Timer | None = None

    def look() -> None:
        nonlocal told, timer
        timer = sidekick.loop.after(EVERY_S, look)
        found = [port for port in listening() if port not in sidekick.gates.ports]
        if found != told and connection.room:
            told = found
            connection.send_json(RESULT, {"ports": found})

    def gone() -> None:
        sidekick.port_followers -= 1
        if timer is not None:
            timer.cancel()

    connection.when_closed(gone)
    look()


def listening() -> list[int]:
    """Ports of TCP, of either family and any address of this network namespace."""
    found: set[int] = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            with open(table, "rb") as file:
                lines = file.read(_TABLE_BYTES).splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTENS:
                found.add(int(fields[1].rpartition(b":")[2], 16))
    return sorted(found)[:PORTS_MAX]
