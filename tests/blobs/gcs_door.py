"""A door before fake-gcs-server: it does not know the XML API's plain and multipart uploads, which obstore speaks.

Everything else goes through as it is. Parts of a multipart upload are held here until it is complete.
"""

from __future__ import annotations

import http.client
import itertools
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit


class _Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind: ClassVar[str]  # HOST:PORT of the emulator
    parts: ClassVar[dict[str, dict[int, bytes]]] = {}  # of each upload
    numbers: ClassVar = itertools.count(1)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = urlsplit(self.path)
        query = parse_qs(asked.query, keep_blank_values=True)
        upload = query.get("uploadId", [""])[0]
        if self.command == "POST" and "uploads" in query:
            name = f"upload-{next(self.numbers)}"
            self.parts[name] = {}
            self._answer(
                200, f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            )
        elif self.command == "PUT" and upload:
            self.parts[upload][int(query["partNumber"][0])] = body
            self._answer(200)
        elif self.command == "DELETE" and upload:
            del self.parts[upload]
            self._answer(204)
        elif self.command == "POST" and upload:
            parts = self.parts.pop(upload)
            self._forward("PUT", f"{asked.path}?X-Goog-Algorithm=any", b"".join(parts[n] for n in sorted(parts)))
        elif self.command == "PUT":
            self._forward("PUT", f"{asked.path}?X-Goog-Algorithm=any", body)
        else:
            self._forward(self.command, self.path, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any

    def _forward(self, method: str, path: str, body: bytes) -> None:
        behind = http.client.HTTPConnection(self.behind, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() in ("range", "if-match")}
            behind.request(method, path, body or None, headers)
            answer = behind.getresponse()
            data = answer.read()
        finally:
            behind.close()
        if method == "PUT" and answer.status == 200:
            done = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
            self._answer(200, done if self.command == "POST" else "")
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("date", "server", "connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@contextmanager
def door(behind: str) -> Generator[tuple[str, dict[str, dict[int, bytes]]]]:
    """The door's address, and what uploads are open behind it."""
    parts: dict[str, dict[int, bytes]] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Door", (_Door,), {"behind": behind, "parts": parts}))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", parts
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
