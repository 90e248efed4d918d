"""Wire: a socket that somebody else holds too, and may have made wait."""

from __future__ import annotations

import os
import socket
import struct

from atoll.gateway.previews.wire import Wire


async def test_closing_waits_for_nobody_whatever_the_other_side_has_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with theirs, socket.socket(fileno=os.dup(ours.fileno())) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3_600))
        ours.setblocking(False)
        wire = Wire(ours)
        wire.write(b"x")
        wire.close()
        lingers, _ = struct.unpack("ii", held.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        assert not lingers
