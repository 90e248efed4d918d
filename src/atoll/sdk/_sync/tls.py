# Made by scripts/unasync.py from ../_async/tls.py: change that file, not this one.
"""A connection over TLS: OpenSSL between two buffers, and the bytes go where a plain connection's go.

The pool opens one for https. One task may send while another receives: OpenSSL is only ever asked by one at a time.
"""

from __future__ import annotations

import socket
import ssl
import threading
from functools import lru_cache

from atoll.sdk._io import Wire

_PLAIN_BYTES = 262_144


class TlsWire(Wire):
    """Errors are OSError, ssl.SSLError (a certificate that is not trusted) among them."""

    __slots__ = ("_ahead", "_ended", "_guard", "_incoming", "_outgoing", "_tls")

    def __init__(self, sock: socket.socket, host: str) -> None:
        super().__init__(sock)
        self._ahead = b""
        self._ended = False
        self._guard = threading.Lock()  # around OpenSSL, never held while waiting
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = _context().wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    @staticmethod
    def open_tls(host: str, port: int, timeout_s: float) -> TlsWire:
        """Connect and shake hands; the certificate must be trusted by this machine and name `host`."""
        plain = Wire.open(host, port, timeout_s)
        try:
            wire = TlsWire(plain.sock, host)
            wire._shake_hands(timeout_s)
        except BaseException:
            plain.close()
            raise
        return wire

    def send(self, data: bytes) -> None:
        with self._guard:
            self._tls.write(data)
            sealed = self._outgoing.read()
        super().send(sealed)

    def receive(self, timeout_s: float | None) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        while not self._ended:
            data = self._open(super().receive(timeout_s))
            if data:
                return data
        return b""

    def pending(self) -> bool:
        # Tickets for later sessions make the socket readable and mean nothing.
        while not self._ahead and not self._ended and super().pending():
            self._ahead = self._open(self.receive_now())
        return bool(self._ahead) or self._ended

    def _shake_hands(self, timeout_s: float) -> None:
        while True:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            if sealed := self._outgoing.read():
                super().send(sealed)
            if done:
                return
            data = super().receive(timeout_s)
            if not data:
                raise ConnectionResetError("the connection ended in the TLS handshake")
            self._incoming.write(data)

    def _open(self, sealed: bytes) -> bytes:
        """What those bytes, after all before them, say; notes the end."""
        pieces: list[bytes] = []
        with self._guard:
            if sealed:
                self._incoming.write(sealed)
            else:
                self._ended = True
            try:
                while piece := self._tls.read(_PLAIN_BYTES):
                    pieces.append(piece)
                self._ended = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self._ended = True
        return b"".join(pieces)


@lru_cache(maxsize=1)
def _context() -> ssl.SSLContext:
    """This machine's trusted authorities, or those of SSL_CERT_FILE; reading them takes milliseconds."""
    return ssl.create_default_context()
