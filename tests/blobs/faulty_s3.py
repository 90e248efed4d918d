"""An object store of tests that speaks S3's words and breaks as it is told; it checks no signatures.

`faults` are used up one a request, by those that match:  s3.fail(503, times=2)   s3.fail("hang", method="GET")
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

MODIFIED = ("2026-11-21T08:00:00.000Z", "Sat, 21 Nov 2026 08:00:00 GMT")


@dataclass
class Fault:
    """`kind`: a status; "hang": no answer; "cut": half of the answer's body; "late": answered after `after_s`;
    "error": status 200 with an error as the body."""

    kind: int | str
    method: str
    after_s: float


@dataclass
class FaultyS3:
    """What it has and what it was asked."""

    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict[str, dict[int, bytes]])
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    moments: list[float] = field(default_factory=list[float])
    faults: list[Fault] = field(default_factory=list[Fault])
    part_s: float = 0.0  # that each part takes
    received_bytes: int = 0
    busy: int = 0
    busiest: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def fail(self, kind: int | str, times: int = 1, method: str = "", after_s: float = 0.0) -> None:
        self.faults += [Fault(kind, method, after_s)] * times

    def requests(self, method: str) -> int:
        return sum(1 for asked, _ in self.asked if asked == method)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: ClassVar[FaultyS3]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = urlsplit(self.path)
        key = unquote(asked.path).partition("/")[2].partition("/")[2]
        query = {name: values[0] for name, values in parse_qs(asked.query, keep_blank_values=True).items()}
        with self.s3.lock:
            self.s3.asked.append((self.command, self.path))
            self.s3.moments.append(time.monotonic())
            self.s3.received_bytes += len(body)
            self.s3.busy += 1
            self.s3.busiest = max(self.s3.busiest, self.s3.busy)
            fault = next((one for one in self.s3.faults if one.method in ("", self.command)), None)
            if fault is not None:
                self.s3.faults.remove(fault)
        try:
            self._answer_or_fail(fault, key, query, body)
        finally:
            with self.s3.lock:
                self.s3.busy -= 1

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any

    def _answer_or_fail(self, fault: Fault | None, key: str, query: dict[str, str], body: bytes) -> None:
        kind = fault.kind if fault else None
        if isinstance(kind, int):
            self._send(kind, f"<Error><Code>Made{kind}</Code></Error>".encode())
        elif kind == "hang":
            self.s3.over.wait(20)
            self.close_connection = True
        elif kind == "error":
            self._send(200, b"<Error><Code>InternalError</Code><Message>again, please</Message></Error>")
        else:
            if fault and kind == "late":
                self.s3.over.wait(fault.after_s)
            self._answer(key, query, body, cut=kind == "cut")

    def _answer(self, key: str, query: dict[str, str], body: bytes, cut: bool) -> None:
        s3, upload = self.s3, query.get("uploadId", "")
        match self.command:
            case "POST" if "uploads" in query:
                name = f"upload-{next(s3.numbers)}"
                s3.uploads[name] = {}
                text = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
                self._send(200, text.encode())
            case "PUT" if upload:
                s3.over.wait(s3.part_s)
                s3.uploads[upload][int(query["partNumber"])] = body
                self._send(200)
            case "POST":
                parts = s3.uploads.pop(upload)
                s3.objects[key] = b"".join(parts[number] for number in sorted(parts))
                self._send(200, b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")
            case "DELETE":
                s3.uploads.pop(upload, None) if upload else s3.objects.pop(key, None)
                self._send(204)
            case "PUT":
                s3.objects[key] = body
                self._send(200)
            case _ if not key:
                self._send(200, self._listing(query))
            case _ if key not in s3.objects:
                self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
            case _:
                self._send_object(s3.objects[key], cut)

    def _listing(self, query: dict[str, str]) -> bytes:
        found = [key for key in sorted(self.s3.objects) if key.startswith(query.get("prefix", ""))]
        contents = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{MODIFIED[0]}</LastModified><ETag>x</ETag>"
            f"<Size>{len(self.s3.objects[key])}</Size></Contents>"
            for key in found
            if key > query.get("start-after", "")
        )
        return f"<ListBucketResult><KeyCount>{len(found)}</KeyCount>{contents}</ListBucketResult>".encode()

    def _send_object(self, data: bytes, cut: bool) -> None:
        headers = {"Last-Modified": MODIFIED[1]}
        status = 200
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1 if last else len(data), len(data))
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            data, status = data[int(first) : end], 206
        self._send(status, data, headers, sent=len(data) // 2 if cut else None)

    def _send(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, sent: int | None = None
    ) -> None:
        try:
            self.send_response(status)
            for name, value in {"ETag": '"x"', "Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:sent])
            if sent is not None:
                self.close_connection = True
        except OSError:
            self.close_connection = True  # whoever asked did not wait


@contextmanager
def faulty_s3() -> Generator[FaultyS3]:
    s3 = FaultyS3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"s3": s3}))
    server.daemon_threads = True
    s3.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        s3.over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
