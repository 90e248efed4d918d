"""A tenant of the soak: a key, what it made as far as it knows, and requests that say when an answer is none.

Workers call it; the checks ask it what ought to be there.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2

FINE = frozenset({501, 503, 504, 507})  # "not here", "not now": said of this server as it is, and no fault of its own
TIMEOUT_S = 40.0


class Broken(Exception):
    """The server went away: nobody knows whether it was done."""


@dataclass
class Box:
    """A sandbox that was answered, and the files in it that were: path -> content."""

    id: str
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    doubtful: bool = False  # something was asked of it whose answer never came, or a fault hit it
    token: str = ""  # of its daemon


class Findings:
    """What is wrong, from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.found: list[str] = []

    def add(self, what: str) -> None:
        with self._lock:
            self.found.append(what)
            print(f"!! {what}", flush=True)


class Tenant:
    """One of them. Its worker has the lock while it does one thing."""

    def __init__(self, name: str, url: str, key: str, rng: random.Random, findings: Findings) -> None:
        self.name = name
        self.key = key
        self.rng = rng
        self.findings = findings
        self.boxes: dict[str, Box] = {}
        self.workspaces: set[str] = set()
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.worked: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self._http = httpx2.Client(
            base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=TIMEOUT_S, verify=False, trust_env=False
        )

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """The answer. Broken when there is none; a fault of the server's is a finding."""
        try:
            answer = self._http.request(method, path, **more)
        except httpx2.TransportError as error:
            raise Broken(f"{method} {path}: {error!r}") from error
        self.statuses[answer.status_code] += 1
        fine = FINE | ({502} if path.startswith("/preview/") else set[int]())  # the program in the sandbox is not there
        if answer.status_code >= 500 and answer.status_code not in fine:
            self.findings.add(f"{self.name}: {method} {path} answered {answer.status_code}: {answer.text[:300]}")
        return answer

    def json(self, method: str, path: str, **more: Any) -> Any:
        """What a success said, None for any other answer."""
        answer = self.call(method, path, **more)
        if answer.status_code >= 400 or not answer.content:
            return None
        return answer.json()

    def box(self) -> Box | None:
        """One of its sandboxes."""
        return self.rng.choice(list(self.boxes.values())) if self.boxes else None

    def forget(self, box: Box) -> None:
        self.boxes.pop(box.id, None)

    def live(self) -> set[str]:
        """The sandboxes that the server says it has running, whatever surface made them."""
        answer = self.call("GET", "/v1/sessions?status=running&limit=1000")
        return {one["id"] for one in answer.json()["sessions"]} if answer.status_code == 200 else set()
