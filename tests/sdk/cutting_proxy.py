"""A TCP proxy that cuts connections where a test says: after so many bytes from the server, without a goodbye."""

from __future__ import annotations

import socket
import struct
import threading


class CuttingProxy:
    """Connections that ask for a WebSocket take the next number from `cuts`; the rest, and those after it, live on."""

    def __init__(self, port: int) -> None:
        self.cuts: list[int] = []
        self.streams = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut_all(self) -> None:
        """Cut every open connection now."""
        for sock in list(self._open):
            _reset(sock)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()
        for thread in self._threads:
            thread.join(10)

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._port), 10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        self._open += [client, server]
        first = client.recv(65_536)
        left = None
        if b"upgrade: websocket" in first.lower():
            self.streams += 1
            left = self.cuts.pop(0) if self.cuts else None
        try:
            server.sendall(first)
        except OSError:
            pass
        self._run(self._pump, client, server)
        while True:
            try:
                data = server.recv(4096 if left is None else max(1, min(left, 4096)))
                if left is not None:
                    left -= len(data)
                if not data:
                    break
                client.sendall(data)
            except OSError:
                break
            if left == 0:
                break
        _reset(client)
        _reset(server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65_536):
                server.sendall(data)
        except OSError:
            pass
        _reset(server)


def _reset(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()
