from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll import AsyncSandbox, Sandbox
from atoll.sdk import ConnectionFailed, _io, connections
from tests.sdk.stand_in import StandIn

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")


class TlsProxy:
    """Takes TLS connections and speaks plainly to the server behind."""

    def __init__(self, port: int, certificate: Path, key: Path) -> None:
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.accepted = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(plain,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            client = self._context.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            return
        server = socket.create_connection(("127.0.0.1", self._port))
        client.settimeout(0.02)
        server.settimeout(0.02)
        open_ = True
        while open_:
            for source, sink in ((client, server), (server, client)):
                try:
                    data = source.recv(65_536)
                    sink.settimeout(30)
                    sink.sendall(data)
                    sink.settimeout(0.02)
                    open_ = open_ and bool(data)
                except TimeoutError:
                    continue
                except OSError:
                    open_ = False
        client.close()
        server.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    return certificate, key


@pytest.fixture
def proxy(server: StandIn, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsProxy]:
    proxy = TlsProxy(server.port, *certificate)
    monkeypatch.setenv("ATOLL_URL", f"https://127.0.0.1:{proxy.port}")
    connections.tls_context.cache_clear()
    _io._lanes.clear()  # they keep the authorities of the test before
    yield proxy
    connections.tls_context.cache_clear()
    _io.close_connections()
    _io._lanes.clear()
    proxy.close()


def test_requests_files_and_streams_work_over_tls(
    proxy: TlsProxy, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    data = b"x" * 1_000_000
    with Sandbox.create() as sandbox:
        for _ in range(5):
            assert sandbox.run("echo hi").stdout == "hi\n"
        assert proxy.accepted == 1  # kept and used again
        sandbox.files.write("/f", data)
        assert sandbox.files.read_bytes("/f") == data
        with sandbox.exec(["cat"]) as process:
            process.write("said\n")
            chunk = process.read(5)
            assert chunk is not None
            assert chunk.data == b"said\n"
            process.close_stdin()
            assert process.read(5) is None
        result = sandbox.run(["cat"], stdin=data, on_stdout=lambda text: None)
        assert result.stdout_bytes == data


async def test_the_same_with_await(
    proxy: TlsProxy, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with await AsyncSandbox.create() as sandbox:
        for _ in range(5):
            assert (await sandbox.run("echo hi")).stdout == "hi\n"
        assert proxy.accepted == 1
        result = await sandbox.run(["cat"], stdin=b"x" * 1_000_000, on_stdout=lambda text: None)
        assert len(result.stdout_bytes) == 1_000_000


def test_a_certificate_that_nobody_vouches_for_is_refused(proxy: TlsProxy) -> None:
    with pytest.raises(ConnectionFailed, match="certificate"):
        Sandbox.create()
