"""C08: the server is ended under load, by SIGTERM and by SIGKILL; the next one has everything that was there."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from atoll.sdk import Sandbox
from tests.e2e.conftest import needs_root
from tests.e2e.machine import until
from tests.e2e.server import Server
from tests.faults.test_c01_crash_points import assert_whole

pytestmark = [pytest.mark.root, needs_root]
DRAIN_S = 10.0
BOTH_WAYS = pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill9", "term"])


@BOTH_WAYS
def test_c08_everything_is_there_after_a_restart_under_load(mortal: Server, how: signal.Signals) -> None:
    server = mortal
    witness = server.create(["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"])
    node, load = server.machine.node(), Load(server)
    load.begin()
    until(lambda: load.done > 60, within_s=30, what="load")
    began = time.monotonic()
    server.end(how)
    if how == signal.SIGTERM:
        assert time.monotonic() - began < DRAIN_S + 2
    load.end()
    server.start()
    assert server.machine.node() == node
    assert_whole(server)
    live = {one["id"] for one in server.sessions("running")}
    assert load.created <= live, "a sandbox that its maker was told of is gone"
    for (sandbox, path), size in load.files.items():
        assert int(server.sh(sandbox, f"stat -c %s {path}")) == size
    beats = server.http.get(f"/v1/sessions/{witness}/logs").text.split()
    assert beats == [str(number) for number in range(len(beats))]
    assert len(beats) > (time.monotonic() - began) / 0.05, "the witness stood still"
    with Sandbox.create(url=server.url, api_key=server.key) as sandbox:
        assert sandbox.run("echo new").stdout == "new\n"


class Load:
    """A few threads that create, run, stream, upload and kill until the server is gone."""

    def __init__(self, server: Server) -> None:
        self.done = 0
        self.created: set[str] = set()  # whose making was answered and whose killing was never asked for
        self.files: dict[tuple[str, str], int] = {}  # uploads that were answered
        self._server = server
        self._stop = threading.Event()
        self._base = server.create()
        self.created.add(self._base)
        works = [self._create, self._create, self._exec, self._upload]
        self._threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _repeat(self, work: Callable[..., None]) -> None:
        url, key = self._server.url, self._server.key
        base = Sandbox.connect(self._base, url=url, api_key=key)
        try:
            while not self._stop.is_set():
                work(base)
                self.done += 1
        except Exception:
            assert self._stop.wait(20)  # the server is gone

    def _create(self, base: Sandbox) -> None:
        sandbox = Sandbox.create(url=self._server.url, api_key=self._server.key)
        if random.random() < 0.8:
            sandbox.kill()
        elif len(self.created) < 10:
            self.created.add(sandbox.id)

    def _exec(self, base: Sandbox) -> None:
        assert base.run("seq 1000 | wc -l").stdout.strip() == "1000"

    def _upload(self, base: Sandbox) -> None:
        path, size = f"/tmp/{random.randrange(20)}", random.randrange(300_000)
        self.files.pop((self._base, path), None)
        base.files.write(path, os.urandom(size))
        self.files[self._base, path] = size
