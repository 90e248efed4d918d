"""A real `atoll up` on a data folder of its own, with its command line, its HTTP API and its sockets at hand.

The end-to-end and fault tests start it, kill it, and start it again on the same folder and port.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
from websockets.sync.client import ClientConnection, connect

from tests.e2e.machine import Machine, running

START_S = 40.0
STDIN, STDOUT, STDERR, EXIT, ERROR, STDIN_CLOSE, RESIZE = range(1, 8)


class Server:
    """One data folder and the server on it, if one runs."""

    def __init__(
        self, data: Path, settings: str = "", *, program: Sequence[str] = (), env: dict[str, str] | None = None
    ) -> None:
        """`program`: how `atoll` is run, when not as this user and with this Python; `env`: for each start of it."""
        self.data = data
        self.env = env or {}
        self.program = tuple(program or ATOLL)
        self.machine = Machine(data)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.pid = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._http: httpx2.Client | None = None
        self._streams: list[ClientConnection] = []  # closed with the server at the latest
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if settings:
            (data / "atoll.toml").write_text(settings)

    # life

    def start(
        self, *, detach: bool = False, env: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()
    ) -> Server:
        """Returns when it serves; AssertionError with its words when it does not come up."""
        words = ["up", "--data", str(self.data), "--port", str(self.port), "--json"]
        if detach:
            self.pid = json.loads(self.cli(*words, "--detach", env=env).stdout)["pid"]
            return self
        if not self.launch(env, pass_fds):
            assert self._child is not None
            raise AssertionError(f"exit {self._child.returncode}:\n{self.log()[-2000:]}")
        return self

    def launch(self, env: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()) -> bool:
        """Start it as a child of this process; False when it ends before it is ready."""
        with open(self.data / "server.log", "ab", opener=_private) as log:
            self._child = subprocess.Popen(
                [*self.program, "up", "--data", str(self.data), "--port", str(self.port), "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment({"HOME": str(self.data.parent), **self.env, **(env or {})}),
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self.pid = self._child.pid
        try:
            serves = bool(_line(self._child, START_S))
        except AssertionError:
            self.pid = 0
            raise
        if not serves:
            self._child.wait(START_S)
            self.pid = 0
        return serves

    def kill(self) -> None:
        """`kill -9`; returns when it is dead."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM, within_s: float = 30.0) -> int | None:
        """Send it a signal; its exit code once it has ended (None when it was detached)."""
        pid, self.pid = self.pid, 0
        self._close_http()
        os.kill(pid, number)
        return self.ended(pid, within_s)

    def ended(self, pid: int | None = None, within_s: float = 30.0) -> int | None:
        """Wait for its end; its exit code, negative for a signal."""
        if self._child is not None and pid in (None, self._child.pid):
            code = self._child.wait(within_s)
            if self._child.stdout is not None:
                self._child.stdout.close()
            self._child, self.pid = None, 0
            self._close_http()
            return code
        assert pid is not None
        deadline = time.monotonic() + within_s
        while running(pid):
            assert time.monotonic() < deadline, f"server {pid} does not end"
            time.sleep(0.02)
        return None

    def down(self, *words: str) -> dict[str, Any]:
        """`atoll down`: what it said."""
        self._close_http()
        self.close_streams()
        said = json.loads(self.cli("down", "--data", str(self.data), "--json", *words).stdout)
        if self._child is not None:
            self.ended()
        self.pid = 0
        return said

    def log(self) -> str:
        return (self.data / "server.log").read_text(errors="replace")

    def node_log(self) -> str:
        return (self.data / "run" / "node.log").read_text(errors="replace")

    @property
    def key(self) -> str:
        return (self.data / "owner.key").read_text().strip()

    # command line

    def cli(
        self,
        *words: str,
        stdin: bytes | None = None,
        env: dict[str, str] | None = None,
        code: int | None = 0,
        timeout_s: float = 50.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `atoll WORDS` against this server; AssertionError unless it exits with `code` (None: any)."""
        done = subprocess.run(
            [*self.program, *words],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            env=environment({"ATOLL_DATA": str(self.data), **(env or {})}),
            timeout=timeout_s,
        )
        assert code is None or done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def spawn_cli(self, *words: str, **how: Any) -> subprocess.Popen[bytes]:
        """The same, left running with pipes unless `how` says otherwise."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        env = environment({"ATOLL_DATA": str(self.data), **how.pop("env", {})})
        return subprocess.Popen([*self.program, *words], env=env, **{**pipes, **how})

    def new_key(self, *words: str) -> tuple[str, str]:
        """(id, text) of a new standard key."""
        made = json.loads(self.cli("keys", "create", "--name", "test", "--json", *words).stdout)
        return made["id"], made["key"]

    # HTTP

    def client(self, key: str | None = None, **how: Any) -> httpx2.Client:
        """A client of its own; the caller closes it."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=how.pop("timeout", 30.0), **how)

    @property
    def http(self) -> httpx2.Client:
        if self._http is None:
            self._http = self.client()
        return self._http

    def create(self, command: Sequence[str] = (), *, code: int = 201, **fields: Any) -> str:
        """The id of a new session; network none unless said otherwise."""
        body = {"image": "host", "network": "none", "command": list(command), **fields}
        answer = self.http.post("/v1/sessions", json=body)
        assert answer.status_code == code, answer.text
        return answer.json().get("id", "")

    def session(self, sandbox: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/sessions/{sandbox}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sessions(self, status: str | None = None) -> list[dict[str, Any]]:
        answer = self.http.get("/v1/sessions", params={"status": status} if status else {})
        assert answer.status_code == 200, answer.text
        return answer.json()["sessions"]

    def exec(self, sandbox: str, *command: str, **fields: Any) -> dict[str, Any]:
        """The answer of an exec that ran to its end; one word is split by shell-word rules."""
        words: Any = command[0] if len(command) == 1 else list(command)
        answer = self.http.post(f"/v1/sessions/{sandbox}/exec", json={"command": words, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sh(self, sandbox: str, line: str, **fields: Any) -> str:
        """What a shell line wrote; AssertionError unless it exits with 0."""
        done = self.exec(sandbox, "sh", "-c", line, **fields)
        assert done["exitCode"] == 0, done
        return done["stdout"]

    # WebSocket

    def attach(self, sandbox: str, process: str = "main", offset: int = 0, **how: Any) -> ClientConnection:
        query = urlencode({"protocol": "binary", "process": process, "offset": offset})
        return self.socket(f"/v1/sessions/{sandbox}/attach?{query}", **how)

    def stream(self, sandbox: str, *command: str, key: str | None = None, **query: Any) -> ClientConnection:
        words = "&".join(f"cmd={quote(word, safe='')}" for word in command)
        more = urlencode({"protocol": "binary", **query})
        return self.socket(f"/v1/sessions/{sandbox}/exec?{words}&{more}", key=key)

    def socket(self, target: str, key: str | None = None, **how: Any) -> ClientConnection:
        headers = {"authorization": f"Bearer {key or self.key}"}
        url = self.url.replace("http", "ws", 1) + target
        how = {"open_timeout": 20, "close_timeout": 5, "max_size": None, "compression": None, **how}
        self._streams.append(connect(url, additional_headers=headers, **how).__enter__())
        return self._streams[-1]

    def _close_http(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def close_streams(self) -> None:
        while self._streams:
            self._streams.pop().close()


ATOLL = (sys.executable, "-m", "atoll.cli.main")


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """This process's, without what would point an `atoll` elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATOLL_", "PORT", "DB_PATH"))}
    return {**kept, "PYTHONWARNINGS": "default", **(more or {})}


def free_port() -> int:
    """Free now, and below the kernel's ephemeral range: the same number must be free for the next start too."""
    # others look for ports at the same time: each begins somewhere else
    for port in range(random.randrange(21_000, 31_000), 32_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port not in _taken and probe.connect_ex(("127.0.0.1", port)) != 0:
                _taken.add(port)
                return port
    raise AssertionError("no free port")


_taken: set[int] = set()


@contextlib.contextmanager
def ended_at_exit(server: Server) -> Generator[Server]:
    """The server while the block lasts; then `atoll down`, whatever state it is in."""
    try:
        yield server
    finally:
        server.down()


def frame(kind: int, data: bytes = b"") -> bytes:
    return bytes([kind]) + len(data).to_bytes(4) + data


def drain(stream: ClientConnection, timeout_s: float = 30.0) -> tuple[bytes, bytes, int | None]:
    """(stdout, stderr, exit code) of a binary stream read to its close; None when no exit came."""
    outputs = {STDOUT: bytearray(), STDERR: bytearray()}
    code: int | None = None
    for message in messages(stream, timeout_s):
        if message[0] == EXIT:
            code = int.from_bytes(message[1:])
        elif message[0] in outputs:
            outputs[message[0]] += message[5:]
    return bytes(outputs[STDOUT]), bytes(outputs[STDERR]), code


def messages(stream: ClientConnection, timeout_s: float = 30.0) -> Generator[bytes]:
    """Binary messages until the other side closes."""
    from websockets.exceptions import ConnectionClosed

    while True:
        try:
            message = stream.recv(timeout_s)
        except ConnectionClosed:
            return
        assert isinstance(message, bytes)
        yield message


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _line(child: subprocess.Popen[bytes], limit_s: float) -> bytes:
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], limit_s)
    if not ready:
        child.kill()
        child.wait()
        raise AssertionError(f"the server was not ready after {limit_s:g} s")
    return child.stdout.readline()
