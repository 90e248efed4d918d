"""Idle: what counts as use of a sandbox, as its deadlines ask the sidekick."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from atoll.domain.process import ProcessSpec
from atoll.sidekick import protocol as wire
from tests.sidekick.running import RunningSidekick, receive, send, until

SERVER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
listener.accept()[0].recv(1)
listener.accept()
"""


def idle_s(sidekick: RunningSidekick) -> float:
    answer = sidekick.ask({"op": "idle"})
    assert answer is not None and answer[0] == wire.RESULT
    return answer[1]["idle_s"]


def main(**more: Any) -> dict[str, Any]:
    return {"argv": [sys.executable, "-c", SERVER], "tty": False, "cols": 80, "rows": 24, **more}


def port_of(sidekick: RunningSidekick) -> tuple[socket.socket, int]:
    """Attached to the server, that says where it listens."""
    sock = sidekick.open()
    send(sock, wire.REQUEST, {"op": "attach", "process": "main", "offset": 0})
    while (frame := receive(sock)) is not None and frame[0] != wire.STDOUT:
        pass
    assert frame is not None
    return sock, int(frame[1])


async def test_a_main_process_is_use_unless_it_serves_ports(tmp_path: Path) -> None:
    for name, serves in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        with RunningSidekick(tmp_path / name, main=main(serves=serves)) as sidekick:
            attached, port = port_of(sidekick)
            assert idle_s(sidekick) == 0.0  # somebody follows it
            attached.close()
            if not serves:
                assert idle_s(sidekick) == 0.0
                continue
            with sidekick.open() as waiting:  # as the server does, for its end
                send(waiting, wire.REQUEST, {"op": "wait", "process": "main"})
                until(lambda sidekick=sidekick: idle_s(sidekick) > 0.0)
            with sidekick.open() as dialled:
                send(dialled, wire.REQUEST, {"op": "dial", "port": port})
                answer = receive(dialled)
                assert answer is not None and answer[0] == wire.RESULT
                assert idle_s(sidekick) == 0.0  # somebody is connected
            until(lambda sidekick=sidekick: idle_s(sidekick) > 0.0)
            stream = await sidekick.client.start(ProcessSpec(("sleep", "100")))
            assert idle_s(sidekick) == 0.0  # what else runs counts
            await stream.close()
