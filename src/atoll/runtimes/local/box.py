"""Box: what the node knows of one sandbox, and the small file in the data folder from which a new node learns it."""

from __future__ import annotations

import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.runtimes.local.birth import Birth
    from atoll.runtimes.local.cgroups import Counters
    from atoll.sidekick.loop import Timer

STATE_NAME = "sandbox.json"
ENDED_NAME = "ended.json"


def boot_now() -> float:
    """Seconds since boot, suspend included: deadlines do not move when somebody sets the clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _read_boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


BOOT_ID = _read_boot_id()


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot: with the pid it names one process for ever. 0: gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == b"Z" else int(fields[19])


class Box:
    """A sandbox of this node. `pid` is its sidekick's, 0 until it is cloned."""

    def __init__(self, key: str, folder: str, slot: int, network: str) -> None:
        self.key = key  # the name of its cgroup
        self.id = ""  # the sandbox's, once it has one
        self.folder = folder
        self.slot = slot
        self.network = network
        self.tree = ""  # the tree that it keeps, when it is no sandbox but a keeper
        self.mounts: list[dict[str, Any]] = []  # see mounting.py
        self.host_mounts: list[dict[str, Any]] = []  # see host_mounts.py
        self.limits: dict[str, float | None] = {}  # timeout_s, idle_s, max_age_s
        self.pid = 0
        self.ticks = 0
        self.started = boot_now()
        self.ready = False
        self.gone = False
        self.frozen = False
        self.awake_since = 0.0  # idleness counts from here on, at most
        self.asked_at = 0.0  # when its sidekick was asked what it has not answered yet; 0 for nothing
        self.silent_since = 0.0  # the first question that it left unanswered; 0 when it answered the last
        self.reason = ""  # why the node is ending it by itself
        self.pidfd = -1
        self.counters: Counters | None = None
        self.sent_bytes = 0  # into its network, when somebody looked last
        self.timer: Timer | None = None
        self.birth: Birth | None = None
        self.when_gone: list[Callable[[dict[str, Any]], None]] = []

    def save(self) -> None:
        """Into its folder; OSError when that cannot be written."""
        fields = {
            "id": self.id,
            "key": self.key,
            "slot": self.slot,
            "network": self.network,
            "tree": self.tree,
            "mounts": self.mounts,
            "host_mounts": self.host_mounts,
            "limits": self.limits,
            "pid": self.pid,
            "ticks": self.ticks,
            "started": self.started,
            "ready": self.ready,
            "frozen": self.frozen,
            "boot_id": BOOT_ID,
        }
        write_small(f"{self.folder}/{STATE_NAME}", fields)

    @classmethod
    def load(cls, folder: str) -> Box | None:
        """The box that `save` wrote there; None when there is none or it is of an earlier boot or never lived."""
        fields = read_small(f"{folder}/{STATE_NAME}")
        if fields is None:
            return None
        box = cls(fields["key"], folder, fields["slot"], fields["network"])
        box.id, box.limits = fields["id"], fields["limits"]
        box.tree, box.mounts = fields.get("tree", ""), fields.get("mounts", [])
        box.host_mounts = fields.get("host_mounts", [])
        box.pid, box.ticks, box.started = fields["pid"], fields["ticks"], fields["started"]
        box.ready, box.frozen = fields["ready"], fields["frozen"]
        if fields["boot_id"] != BOOT_ID:
            box.reason = "host_restarted"
            box.pid = 0
        return box

    @property
    def alive(self) -> bool:
        return self.pid != 0 and start_ticks(self.pid) == self.ticks

    def next_deadline(self) -> tuple[float, str] | None:
        """(seconds since boot, reason) of the first hard limit."""
        due = [
            (self.started + limit, reason)
            for reason, limit in (("timeout", self.limits.get("timeout_s")), ("max_age", self.limits.get("max_age_s")))
            if limit is not None
        ]
        return min(due) if due else None


def usage_of(box: Box) -> dict[str, Any]:
    """What it used until now, in the fields of domain Usage; zero where the host does not count."""
    counted: dict[str, Any] = {} if box.counters is None else box.counters.usage()
    return {"duration_s": boot_now() - box.started, "sent_bytes": box.sent_bytes, **counted}


def read_small(path: str) -> dict[str, Any] | None:
    """What `write_small` wrote; None when there is nothing whole."""
    try:
        with open(path) as file:
            value, _ = json.JSONDecoder().raw_decode(file.read())  # the end of a longer one may still be behind it
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]


def write_small(path: str, value: Any) -> None:
    """In one write: a node that dies in it leaves the old text or the new."""
    """In one write: shorter text is filled up with blanks, which JSON may end with."""
    data = json.dumps(value, separators=(",", ":")).encode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, data.ljust(os.fstat(fd).st_size), 0)
    finally:
        os.close(fd)
