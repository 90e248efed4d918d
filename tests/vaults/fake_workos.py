"""A stand-in for the HTTP API of WorkOS Vault: data keys under keys of its own, found by their context.

It speaks as the API's reference and its published clients do; a test drives it with the official one where that is
installed. The key-encrypting keys live in it alone.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = b"WOS.KEK-fake."


class FakeWorkos:
    """`refuse` answers the next requests with these statuses; `requests` is what was asked, without values."""

    def __init__(self) -> None:
        self.api_key = "sk_test_" + secrets.token_hex(12)
        self.refuse: list[int] = []
        self.requests: list[str] = []
        self._keks: dict[str, bytes] = {}

    def answer(self, path: str, credential: str | None, body: Any) -> tuple[int, dict[str, Any]]:
        self.requests.append(path)
        if self.refuse:
            return self.refuse.pop(0), {"message": "refused as told", "code": "told"}
        if credential != f"Bearer {self.api_key}":
            return 401, {"message": "Unauthorized"}
        if not isinstance(body, dict):
            return 400, {"message": "Invalid JSON", "code": "bad_request"}
        match path:
            case "/vault/v1/keys/data-key":
                return self._data_key(body.get("context"))
            case "/vault/v1/keys/decrypt":
                return self._decrypt(body.get("keys"))
            case _:
                return 404, {"message": "Not Found"}

    def _data_key(self, context: Any) -> tuple[int, dict[str, Any]]:
        strings = isinstance(context, dict) and all(isinstance(value, str) for value in context.values())
        if not strings or not context:
            wrong = {"field": "context", "code": "context must be a map of text"}
            return 422, {"message": "Validation failed", "code": "unprocessable_entity", "errors": [wrong]}
        kek = self._keks.setdefault(json.dumps(context, sort_keys=True), secrets.token_bytes(32))
        key, key_id, nonce = secrets.token_bytes(32), secrets.token_hex(16), secrets.token_bytes(12)
        sealed = AESGCM(kek).encrypt(nonce, key, key_id.encode())
        blob = PREFIX + key_id.encode() + nonce + sealed
        told = {"context": context, "id": key_id}
        return 200, told | {"data_key": _text(key), "encrypted_keys": _text(blob)}

    def _decrypt(self, keys: Any) -> tuple[int, dict[str, Any]]:
        try:
            blob = base64.b64decode(keys, validate=True)
        except (ValueError, TypeError):
            return 400, {"message": "keys is no base64", "code": "bad_request"}
        head, rest = blob[: len(PREFIX)], blob[len(PREFIX) :]
        key_id, nonce, sealed = rest[:32], rest[32:44], rest[44:]
        for kek in self._keks.values():
            try:
                if head == PREFIX:
                    key = AESGCM(kek).decrypt(nonce, sealed, key_id)
                    return 200, {"data_key": _text(key), "id": key_id.decode()}
            except (InvalidTag, ValueError):
                continue
        return 400, {"message": "the data key cannot be decrypted", "code": "invalid_keys"}


@contextmanager
def serving(api: FakeWorkos) -> Iterator[str]:
    """The URL of the API while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                body = json.loads(data)
            except ValueError:
                body = None
            status, told = api.answer(self.path, self.headers.get("authorization"), body)
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
