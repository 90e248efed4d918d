"""The oracles of the soak, looked at while no tenant works: host, leaks, ledger, blobs, audit, secrets, witness.

`city` calls `check` each minute, and `flat` at the end.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from itertools import pairwise

from soak.faults import memory_bytes
from soak.tenant import Findings, Tenant
from soak.work import CANARY
from tests.e2e.machine import until
from tests.e2e.server import Server
from tests.oracles import HostOracle

SETTLE_S = 30.0
GROWN_BYTES, GROWN_FILES, GROWN_THREADS = 32 * 2**20, 24, 6
PIECE = 2**20
SKIPPED = ("templates", "trees", "blobs")  # roots of sandboxes; what tenants keep is theirs to read


@dataclass(frozen=True)
class Sample:
    """What the server and the node are made of at one moment."""

    server: int
    memory_bytes: int
    files: int
    threads: int
    node_memory_bytes: int
    node_files: int


def check(server: Server, tenants: list[Tenant], host: HostOracle, findings: Findings) -> None:
    """Every oracle but the witness's. What is wrong is a finding; nothing is raised for it."""
    for name, look in (
        ("O1", lambda: host.check()),
        ("O2", lambda: _leaks(server, tenants)),
        ("O3", lambda: _said(server, "ledger", "verify")),
        ("O4", lambda: _workspaces(tenants)),
        ("O5", lambda: _said(server, "audit", "verify")),
        ("O6", lambda: _secrets(server, tenants)),
        ("model", lambda: _as_remembered(tenants)),
    ):
        try:
            look()
        except AssertionError as error:
            findings.add(f"{name}: {str(error)[:600]}")


def _leaks(server: Server, tenants: list[Tenant]) -> None:
    """The machine has the sandboxes that the records say, and no other."""

    def told() -> set[str]:
        return set().union(*(tenant.live() for tenant in tenants))

    def equal() -> bool:
        return server.machine.sandbox_folders() == told()

    try:
        until(equal, within_s=SETTLE_S)
    except AssertionError:
        folders, live = server.machine.sandbox_folders(), told()
        raise AssertionError(f"only on the machine: {folders - live}; only in the records: {live - folders}") from None


def _said(server: Server, *words: str) -> None:
    done = server.cli(*words, code=None, timeout_s=120)
    assert done.returncode == 0, f"{' '.join(words)}: {(done.stdout + done.stderr).decode(errors='replace')[-500:]}"


def _workspaces(tenants: list[Tenant]) -> None:
    """Every revision that is kept can be read."""
    for tenant in tenants:
        for name in sorted(tenant.workspaces):
            answer = tenant.call("POST", f"/v1/workspaces/{name}/verify")
            assert answer.status_code == 200, f"{tenant.name}/{name}: {answer.status_code} {answer.text[:300]}"
            assert answer.json().get("ok", True), f"{tenant.name}/{name}: {answer.text[:300]}"


def _secrets(server: Server, tenants: list[Tenant]) -> None:
    """No value of a secret and no key in a file of the server's."""
    wanted = [CANARY.encode(), *(tenant.key.encode() for tenant in tenants)]
    for top, folders, names in os.walk(server.data):
        folders[:] = [one for one in folders if one not in SKIPPED]
        for name in names:
            path = os.path.join(top, name)
            held = _contains(path, wanted)
            assert held is None, f"{path} holds {wanted[held or 0][:12]!r}..."


def _contains(path: str, wanted: list[bytes]) -> int | None:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, "rb") as file:
            before = b""
            while piece := file.read(PIECE):
                found = next((number for number, text in enumerate(wanted) if text in before + piece), None)
                if found is not None:
                    return found
                before = piece[-128:]
    except OSError:
        pass
    return None


def _as_remembered(tenants: list[Tenant]) -> None:
    """What was answered is there, with its files, unless a fault hit it; nobody else's is."""
    for tenant in tenants:
        live = tenant.live()
        for box in list(tenant.boxes.values()):
            if box.id not in live:
                assert box.doubtful, f"{tenant.name} was told of {box.id}, which is gone"
                tenant.forget(box)
                continue
            for path, content in box.files.items():
                answer = tenant.call("GET", f"/v1/sessions/{box.id}/files?path={path}")
                assert answer.status_code == 200, f"{path} of {box.id}: {answer.status_code} {answer.text[:200]}"
                assert answer.content == content, f"{path} of {box.id} is not what was written"
    for tenant, other in pairwise([*tenants, tenants[0]]):
        for box in other.boxes.values():
            for path in (f"/v1/sessions/{box.id}", f"/sb/{box.id}/files", f"/sandboxes/{box.id}/files"):
                status = tenant.call("GET", path).status_code
                assert status == 404, f"{tenant.name} sees {other.name}'s {path}: {status}"


def sample(server: Server) -> Sample:
    node = server.machine.node()
    return Sample(
        server.pid,
        memory_bytes(server.pid),
        _count(server.pid, "fd"),
        _count(server.pid, "task"),
        memory_bytes(node),
        _count(node, "fd"),
    )


def flat(samples: list[Sample], findings: Findings) -> None:
    """Of one server process with equally many sandboxes, the last is about what the first was."""
    of_last = [one for one in samples if one.server == samples[-1].server] if samples else []
    if len(of_last) < 3:
        return
    first, last = of_last[1], of_last[-1]  # what the first minute loads stays
    for what, was, now, more in (
        ("RSS", first.memory_bytes, last.memory_bytes, GROWN_BYTES),
        ("descriptors", first.files, last.files, GROWN_FILES),
        ("threads", first.threads, last.threads, GROWN_THREADS),
    ):
        if now > was + more:
            findings.add(f"the server's {what} grew from {was:,} to {now:,}")


def _count(pid: int, what: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/{what}"))
    except OSError:
        return 0
