"""What a server's data folder has on the machine besides its files: processes, cgroups, mounts, links, tables, claims.

The end-to-end and fault tests look before and after; nothing here changes anything.
"""

from __future__ import annotations

import glob
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from atoll.runtimes.local.nftables import Nftables

SETTLE_S = 8.0


class Machine:
    """The traces of one data folder. Others' servers on the same machine are not looked at."""

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()
        # As LocalRuntime derives it; `test_up_leaves_marks` fails when that changes and these would see nothing.
        mark = hashlib.sha256(str(self.data).encode()).hexdigest()[:8]
        self.name = f"atoll-{mark}"
        self.interface_prefix = f"at{mark[:6]}x"

    def traces(self) -> list[str]:
        """Everything of it that is on the machine now."""
        return [
            *(f"process {pid} {_title(pid)}" for pid in self.processes()),
            *(f"cgroup {path}" for path in self.cgroups()),
            *(f"mount {line}" for line in self.mounts()),
            *(f"link {name}" for name in self.links()),
            *(f"nft table {name}" for name in self.tables()),
            *(f"loop device {name}" for name in self.loops()),
            *(f"claim {line}" for line in self.claims()),
        ]

    def processes(self) -> list[int]:
        """Those in its cgroups, and those that hold its files open: server, node, sidekicks, tenants."""
        return [pid for pid in _pids() if pid != os.getpid() and (self._in_cgroup(pid) or self._holds_files(pid))]

    def node(self) -> int:
        """The pid of the node; 0 when there is none."""
        try:
            lock = os.stat(self.data / "run" / "node.lock")
        except FileNotFoundError:
            return 0
        wanted = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == wanted:
                return int(fields[4])
        return 0

    def cgroups(self) -> list[str]:
        """Every cgroup folder of its own, those of single sandboxes included."""
        tops = [*glob.glob(f"/sys/fs/cgroup/*/{self.name}"), *glob.glob(f"/sys/fs/cgroup/{self.name}")]
        return [folder for top in tops for folder, _, _ in os.walk(top)]

    def mounts(self) -> list[str]:
        """Mounts below the data folder, in whatever mount namespace a process keeps."""
        seen: set[str] = set()
        found: list[str] = []
        for pid in _pids():
            try:
                namespace = os.readlink(f"/proc/{pid}/ns/mnt")
                if namespace in seen:
                    continue
                seen.add(namespace)
                lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            except OSError:
                continue
            found += [f"{namespace} {line}" for line in lines if str(self.data) + "/" in line]
        return found

    def links(self) -> list[str]:
        return [name for name in os.listdir("/sys/class/net") if name.startswith(self.interface_prefix)]

    def tables(self) -> list[str]:
        nftables = Nftables()
        try:
            return [name for name in nftables.tables() if name == self.name]
        finally:
            nftables.close()

    def loops(self) -> list[str]:
        return [path for path in glob.glob("/sys/block/loop*/loop/backing_file") if self._ours(path)]

    def claims(self) -> list[str]:
        """What the machine-wide files under /run/atoll say of it."""
        found: list[str] = []
        for path in glob.glob("/run/atoll/**", recursive=True):
            if os.path.isfile(path):
                lines = Path(path).read_text(errors="replace").splitlines()
                found += [f"{path}: {line}" for line in lines if self.name in line or str(self.data) in line]
        return found

    def sandbox_folders(self) -> set[str]:
        """The sandboxes that the node has, without those made ahead."""
        try:
            return {name for name in os.listdir(self.data / "run" / "sandboxes") if name.startswith("sess_")}
        except FileNotFoundError:
            return set()

    def spares(self) -> int:
        return sum(name.startswith(".spare") for name in os.listdir(self.data / "run" / "sandboxes"))

    def keepers(self) -> int:
        """Working trees that have a keeper now."""
        try:
            return len(os.listdir(self.data / "run" / "keepers"))
        except FileNotFoundError:
            return 0

    def rest(self, quiet_s: float = 0.3) -> None:
        """Wait until the node has made what it makes ahead."""
        count, since = self.spares(), time.monotonic()
        while time.monotonic() - since < quiet_s:
            time.sleep(0.05)
            if self.spares() != count:
                count, since = self.spares(), time.monotonic()

    def _ours(self, path: str) -> bool:
        try:
            return Path(path).read_text().startswith(str(self.data))
        except OSError:
            return False

    def _in_cgroup(self, pid: int) -> bool:
        try:
            return f"/{self.name}/" in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            return False

    def _holds_files(self, pid: int) -> bool:
        try:
            links = [f"/proc/{pid}/cwd", *(f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))]
        except OSError:
            return False
        for link in links:
            try:
                if os.readlink(link).startswith(str(self.data) + "/"):
                    return True
            except OSError:
                continue
        return False


def until(holds: Callable[[], object], within_s: float = SETTLE_S, what: str = "") -> None:
    """Wait for it; AssertionError when it does not come true in time."""
    deadline = time.monotonic() + within_s
    pause_s = 0.01
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what or holds}"
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.2)


def assert_nothing_left(machine: Machine, within_s: float = SETTLE_S) -> None:
    deadline = time.monotonic() + within_s
    while left := machine.traces():
        if time.monotonic() > deadline:
            raise AssertionError("left on the machine:\n" + "\n".join(left))
        time.sleep(0.1)


def resident_bytes(pid: int) -> int:
    """Memory of a process: what is its own, without the files that it shares."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def running(pid: int) -> bool:
    """Whether that process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:100]
    except OSError:
        return "gone"
