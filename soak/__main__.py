"""`make soak SOAK="--minutes 30"`: tenants work at random, faults hit the server, each minute all is looked at."""

from __future__ import annotations

import argparse
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from soak.checks import Sample, check, flat, sample
from soak.faults import FAULTS, QUIET
from soak.tenant import Broken, Findings, Tenant
from soak.witness import Witness
from soak.work import one_deed
from tests.e2e.conftest import FAULTS as WORDS_OF_FAULTS
from tests.e2e.machine import assert_nothing_left
from tests.e2e.server import Server
from tests.oracles import HostOracle

SETTINGS = """
[sandboxes]
reconcile_s = 1.0
orphan_grace_s = 2.0
spares = 2
[rates]
enabled = false
[agents]
default = "command"
"""
MIB = 2**20
QUIET_PART = 0.6  # from there on the server stays the process that it is, so that it can be seen to be flat
CREDITS = 1000  # dollars
KEPT = 2  # sandboxes of each tenant at a check: samples compare


class Soak:
    """One run."""

    def __init__(self, server: Server, seed: str, gap_s: float) -> None:
        self._server = server
        self._rng = random.Random(f"{seed}/faults")
        self.findings = Findings()
        self._gate, self._stop = threading.Event(), threading.Event()
        made: dict[str, str] = {}
        for name in ("alice", "bob", "mallory"):
            principal, made[name] = server.new_key("--name", name)
            given = server.http.post(f"/billing/admin/{principal}/credits", json={"amount": CREDITS})
            assert given.status_code < 300, given.text
        alice, *self.workers = [
            Tenant(name, server.url, key, random.Random(f"{seed}/{name}"), self.findings) for name, key in made.items()
        ]
        self.witness = Witness(alice, self.findings, gap_s)
        self.samples: list[Sample] = []
        self.tenants = [alice, *self.workers]
        self.faults: list[str] = []

    def run(self, seconds: float, check_every_s: float, fault_every_s: float, host: HostOracle) -> None:
        threads = [threading.Thread(target=self._work, args=(tenant,)) for tenant in self.workers]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        try:
            while (gone := time.monotonic() - began) < seconds:
                self._gate.set()
                self._hit(min(check_every_s, seconds - gone), fault_every_s, quiet=gone > QUIET_PART * seconds)
                self._look(host)
                self._tell(time.monotonic() - began)
        finally:
            self._stop.set()
            self._gate.set()
            for thread in threads:
                thread.join(60)
                if thread.is_alive():
                    self.findings.add("a request of a worker never ended")
        flat(self.samples, self.findings)
        self._find_idle()

    def _work(self, tenant: Tenant) -> None:
        while not self._stop.is_set():
            self._gate.wait()
            try:
                with tenant.lock:
                    one_deed(tenant)
            except Broken:
                time.sleep(0.2)
            except Exception as error:
                self.findings.add(f"{tenant.name}'s worker met {error!r}")
                time.sleep(1)

    def _hit(self, for_s: float, every_s: float, *, quiet: bool) -> None:
        until = time.monotonic() + for_s
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, every_s * self._rng.uniform(0.5, 1.5)))
            if time.monotonic() < until:
                fault = self._rng.choice(QUIET if quiet else FAULTS)
                try:
                    self.faults.append(fault(self._server, self.workers, self._rng))
                except Exception as error:
                    self.findings.add(f"{fault.__name__}: {error!r}"[:600])
                    if not self._server.pid:
                        self._server.start()

    def _look(self, host: HostOracle) -> None:
        """While nobody works."""
        self._gate.clear()
        for tenant in self.workers:
            tenant.lock.acquire()
        try:
            check(self._server, self.tenants, host, self.findings)
            self.witness.check()
            for tenant in self.workers:
                self._tidy(tenant)
            self.samples.append(sample(self._server))
        except Broken as error:
            self.findings.add(f"no server at a check: {error}")
        finally:
            for tenant in self.workers:
                tenant.lock.release()

    def _tidy(self, tenant: Tenant) -> None:
        """Down to a few, also those whose maker never heard of them."""
        kept = list(tenant.boxes)[:KEPT]
        for one in tenant.live() - set(kept):
            tenant.call("DELETE", f"/v1/sessions/{one}")
            tenant.boxes.pop(one, None)

    def _tell(self, gone: float) -> None:
        last = self.samples[-1] if self.samples else None
        done = sum(sum(tenant.worked.values()) for tenant in self.workers)
        asked = sum(sum(tenant.asked.values()) for tenant in self.workers)
        if last is not None:
            print(
                f"{gone:6.0f} s: {done}/{asked} deeds, {len(self.faults)} faults; "
                f"server {last.memory_bytes // MIB} MiB, {last.files} files, {last.threads} threads; "
                f"node {last.node_memory_bytes // MIB} MiB, "
                f"{last.node_files} files; worst beat {self.witness.worst_s:.2f} s; "
                f"{len(self.findings.found)} findings",
                flush=True,
            )

    def _find_idle(self) -> None:
        """A deed that never came off tests nothing."""
        for name in {name for tenant in self.workers for name in tenant.asked}:
            asked, worked = (sum(of[name] for of in some) for some in self._counts())
            if asked >= 8 and not worked:
                self.findings.add(f"{name} was tried {asked} times and never worked")

    def _counts(self) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
        return [tenant.asked for tenant in self.workers], [tenant.worked for tenant in self.workers]


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long; default 30")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="that of a run to do again")
    parser.add_argument("--check", type=float, default=60.0, help="seconds between looks at everything")
    parser.add_argument("--fault", type=float, default=12.0, help="seconds between faults, about")
    parser.add_argument("--gap", type=float, default=1.0, help="seconds that the witness's heart may stand still")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whoever ends it early leaves nothing behind either
    with tempfile.TemporaryDirectory(prefix="atoll-soak-") as folder:
        host = HostOracle(Path(folder))
        server = Server(Path(folder) / "data", SETTINGS)
        try:
            server.start()
            soak = Soak(server, asked.seed, asked.gap)
            soak.run(asked.minutes * 60, asked.check, asked.fault, host)
            bad = [line for line in server.log().splitlines() if any(word in line for word in WORDS_OF_FAULTS)]
            for line in bad[:20]:
                soak.findings.add(f"in the log: {line[:400]}")
            for tenant in soak.tenants:
                tenant.close()
        finally:
            server.down()
            host.remove()
        assert_nothing_left(server.machine, within_s=20)
    worked = {name: sum(one.worked[name] for one in soak.workers) for one in soak.workers for name in one.asked}
    print("worked:", ", ".join(f"{name} {count}" for name, count in sorted(worked.items())))
    answers = sum((one.statuses for one in soak.workers), Counter[int]())
    print("answers:", dict(sorted(answers.items())))
    print("faults:", len(soak.faults))
    print(f"seed {asked.seed}: {len(soak.findings.found)} findings")
    return 1 if soak.findings.found else 0


if __name__ == "__main__":
    sys.exit(main())
