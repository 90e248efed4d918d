"""Alice, the witness: a tenant who does nothing while the others do; everything of hers must stay as it was (O7)."""

from __future__ import annotations

from itertools import pairwise

from soak.tenant import Findings, Tenant

BEAT_S = 0.2
BEATS = f"while :; do read up rest < /proc/uptime; echo $up; sleep {BEAT_S}; done"


class Witness:
    """Her sandbox beats; she has a file, a snapshot and a balance."""

    def __init__(self, tenant: Tenant, findings: Findings, gap_s: float) -> None:
        self.tenant = tenant
        self.gap_s = gap_s
        self.worst_s = 0.0
        self._findings = findings
        body = {"image": "host", "network": "none", "command": ["sh", "-c", BEATS]}
        self.sandbox: str = tenant.json("POST", "/v1/sessions", json=body)["id"]
        tenant.call("POST", f"/v1/sessions/{self.sandbox}/files?path=/tmp/mine", content=b"alice's")
        tenant.call("POST", "/v1/workspaces", json={"name": "hers"})
        tenant.call("POST", "/v1/workspaces/hers/snapshots", json={})
        self._before = self._look()
        self._at = 0

    def check(self) -> None:
        now = self._look()
        if now != self._before:
            changed = {name: (self._before[name], now[name]) for name in now if now[name] != self._before[name]}
            self._findings.add(f"O7: what is alice's changed: {changed}")
        beats = [float(line) for line in self._beats().split()[:-1]]  # the last may be half a line
        gaps = [later - earlier for earlier, later in pairwise(beats)]
        self.worst_s = max([self.worst_s, *gaps])
        if not gaps or max(gaps) > self.gap_s:
            self._findings.add(f"O7: alice's heart stood still for {max(gaps, default=-1):.2f} s")

    def _beats(self) -> str:
        """Those since the last look."""
        answer = self.tenant.call("GET", f"/v1/sessions/{self.sandbox}/logs?offset={self._at}")
        text = answer.text if answer.status_code == 200 else ""
        self._at += text.rfind("\n", 0, max(0, len(text) - 20)) + 1
        return text

    def _look(self) -> dict[str, object]:
        call = self.tenant.call
        session = call("GET", f"/v1/sessions/{self.sandbox}").json()
        return {
            "sandbox": (session.get("id"), session.get("status")),
            "file": call("GET", f"/v1/sessions/{self.sandbox}/files?path=/tmp/mine").content,
            "snapshots": call("GET", "/v1/workspaces/hers/snapshots").text,
            "balance": call("GET", "/billing/account").json().get("creditsBalance"),
            "sandboxes": sorted(self.tenant.live()),
        }
