"""C10: somebody else holds the database's write lock: changes are a 503, what runs goes on, nothing is lost."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import needs_root
from tests.e2e.machine import until
from tests.e2e.server import Server, drain
from tests.faults.test_c01_crash_points import assert_whole

pytestmark = [pytest.mark.root, needs_root]

LOCK_S = 1.0
SETTINGS = f"""
[database]
timeout_s = {LOCK_S}
[sandboxes]
reconcile_s = 0.5
orphan_grace_s = 1.0
"""


def test_c10_a_locked_database_is_a_503_and_what_runs_goes_on(new_server: Callable[..., Server]) -> None:
    server = new_server(SETTINGS).start()
    sandbox = server.create(["sleep", "1000"])
    ends = server.create(["sh", "-c", "echo bye; sleep 0.5; exit 6"])
    stream = server.stream(sandbox, "sh", "-c", "for i in $(seq 40); do echo $i; sleep 0.05; done")
    with locked(server):
        began = time.monotonic()
        refused = server.http.post("/v1/sessions", json={"image": "host", "network": "none"})
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["code"] == "UNAVAILABLE"
        assert time.monotonic() - began < LOCK_S + 2
        assert server.sh(sandbox, "echo exec goes on") == "exec goes on\n"
        assert server.session(sandbox)["status"] == "running"
        stop = server.http.delete(f"/v1/sessions/{sandbox}")
        assert stop.status_code == 503
        assert server.http.get("/health").status_code == 200
        time.sleep(1.0)
    stdout, _, code = drain(stream)
    assert stdout.split() == [b"%d" % i for i in range(1, 41)]
    assert code == 0
    until(lambda: server.session(ends)["status"] == "stopped")
    assert server.session(ends)["exitCode"] == 6
    assert server.http.get(f"/v1/sessions/{ends}/logs").text == "bye\n"
    assert server.sh(server.create(), "echo new") == "new\n"
    assert_whole(server)


@contextmanager
def locked(server: Server) -> Generator[None]:
    database = sqlite3.connect(server.data / "atoll.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
        database.close()
