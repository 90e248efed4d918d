"""Cgroups of one node: a group for each sandbox that bounds cpu, memory and pids and kills all of it at once.

Limits go to whichever hierarchy has the controller (v1 here, v2 there, or both on one machine); kill and freeze use
v2 where it exists. Used by the node; the child joins its group itself.
"""

from __future__ import annotations

import errno
import os

ROOT = "/sys/fs/cgroup"
CONTROLLERS = ("cpu", "memory", "pids")
CPU_PERIOD_US = 100_000
_SWAP_FILES = ("memory.memsw.limit_in_bytes", "memory.swap.max")


class Cgroups:
    """The hierarchies of this host and, in each, a folder of this node's own named `name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._v1 = {c: f"{ROOT}/{c}" for c in CONTROLLERS if os.path.exists(f"{ROOT}/{c}/cgroup.procs")}
        self._v2: str | None = None
        for path in (f"{ROOT}/unified", ROOT):
            if os.path.exists(f"{path}/cgroup.controllers"):
                self._v2 = path
                break
        if self._v2 is None:  # v2 freezes and counts cpu time without any controller
            extra = {c: f"{ROOT}/{c}" for c in ("freezer", "cpuacct") if os.path.exists(f"{ROOT}/{c}/cgroup.procs")}
            self._v1.update(extra)
        self._v2_controllers = self._enable() if self._v2 else set[str]()
        self._swap_counted = False
        self.limits = {c for c in ("cpu", "memory", "pids") if c in self._v1 or c in self._v2_controllers}

    def make(self, sandbox: str) -> list[str]:
        """Make the sandbox's groups; returns the files that the child writes "0" to. The v2 group it is born into.

        `tasks`, not `cgroup.procs`: moving the one thread that writes takes no global lock, and that lock costs an
        RCU grace period (12 ms measured).
        """
        joins: list[str] = []
        try:
            for base in self._bases():
                folder = f"{base}/{self.name}/{sandbox}"
                os.mkdir(folder)
                if base != self._v2:
                    joins.append(f"{folder}/tasks")
        except OSError:
            self.remove(sandbox)
            raise
        return joins

    def birthplace(self, sandbox: str) -> str | None:
        """The v2 group's folder: clone3 puts a child into it, without the lock that a later move would take."""
        return None if self._v2 is None else f"{self._v2}/{self.name}/{sandbox}"

    def limit(self, sandbox: str, cpu_millis: int, memory_bytes: int, pids: int) -> None:
        """Bound it; at any time."""
        quota = cpu_millis * CPU_PERIOD_US // 1000
        for controller, base in self._v1.items():
            folder = f"{base}/{self.name}/{sandbox}"
            if controller == "cpu":
                _write(f"{folder}/cpu.cfs_quota_us", quota)  # the period is 100 ms by default
            elif controller == "memory":
                _write(f"{folder}/memory.limit_in_bytes", memory_bytes)
                if self._swap_counted:
                    _write(f"{folder}/memory.memsw.limit_in_bytes", memory_bytes)
            elif controller == "pids":
                _write(f"{folder}/pids.max", pids)
        folder = f"{self._v2}/{self.name}/{sandbox}"
        if "cpu" in self._v2_controllers:
            _write(f"{folder}/cpu.max", f"{quota} {CPU_PERIOD_US}")
        if "memory" in self._v2_controllers:
            _write(f"{folder}/memory.max", memory_bytes)
            if self._swap_counted:
                _write(f"{folder}/memory.swap.max", 0)
        if "pids" in self._v2_controllers:
            _write(f"{folder}/pids.max", pids)

    def prepare(self) -> None:
        """Make this node's own folder in each hierarchy."""
        for base in self._bases():
            os.makedirs(f"{base}/{self.name}", exist_ok=True)
        if self._v2 is not None:
            for controller in self._v2_controllers:
                _write(f"{self._v2}/{self.name}/cgroup.subtree_control", f"+{controller}")
        own = [f"{base}/{self.name}/{name}" for base in self._bases() for name in _SWAP_FILES]
        self._swap_counted = any(os.path.exists(path) for path in own)

    def kill(self, sandbox: str) -> bool:
        """KILL everything in it; False where the kernel has no cgroup.kill."""
        if self._v2 is None:
            return False
        try:
            _write(f"{self._v2}/{self.name}/{sandbox}/cgroup.kill", 1)
        except OSError:
            return False
        return True

    def freeze(self, sandbox: str, *, frozen: bool) -> None:
        if self._v2 is not None and os.path.exists(f"{self._v2}/{self.name}/{sandbox}/cgroup.freeze"):
            _write(f"{self._v2}/{self.name}/{sandbox}/cgroup.freeze", int(frozen))
        elif "freezer" in self._v1:
            state = "FROZEN" if frozen else "THAWED"
            _write(f"{self._v1['freezer']}/{self.name}/{sandbox}/freezer.state", state)
        else:
            raise OSError(errno.ENOTSUP, "this host has no cgroup freezer")

    def members(self, sandbox: str) -> list[int]:
        """Processes that are in it now."""
        for base in self._bases():
            try:
                return [int(line) for line in _read(f"{base}/{self.name}/{sandbox}/cgroup.procs").split()]
            except OSError:
                continue
        return []

    def remove(self, sandbox: str) -> bool:
        """Remove its groups; False while a dying process still holds one: call again."""
        gone = True
        for base in self._bases():
            try:
                os.rmdir(f"{base}/{self.name}/{sandbox}")
            except FileNotFoundError:
                pass
            except OSError:
                gone = False
        return gone

    def list(self) -> set[str]:
        """Sandboxes that have a group anywhere."""
        found: set[str] = set()
        for base in self._bases():
            try:
                found.update(e.name for e in os.scandir(f"{base}/{self.name}") if e.is_dir())
            except OSError:
                pass
        return found

    def clear(self) -> None:
        """Remove this node's own folders; they must be empty."""
        for base in self._bases():
            try:
                os.rmdir(f"{base}/{self.name}")
            except OSError:
                pass

    def counters(self, sandbox: str) -> dict[str, str]:
        """Files to read usage from: cpu (v1 nanoseconds or v2 cpu.stat), peak (memory), oom (events)."""
        files: dict[str, str] = {}
        if self._v2 is not None:
            files["cpu"] = f"{self._v2}/{self.name}/{sandbox}/cpu.stat"
        elif "cpuacct" in self._v1:
            files["cpu"] = f"{self._v1['cpuacct']}/{self.name}/{sandbox}/cpuacct.usage"
        if "memory" in self._v1:
            files["peak"] = f"{self._v1['memory']}/{self.name}/{sandbox}/memory.max_usage_in_bytes"
            files["oom"] = f"{self._v1['memory']}/{self.name}/{sandbox}/memory.oom_control"
        elif "memory" in self._v2_controllers:
            files["peak"] = f"{self._v2}/{self.name}/{sandbox}/memory.peak"
            files["oom"] = f"{self._v2}/{self.name}/{sandbox}/memory.events"
        return {name: path for name, path in files.items() if os.path.exists(path)}

    def _bases(self) -> list[str]:
        return [*self._v1.values(), *([self._v2] if self._v2 else [])]

    def _enable(self) -> set[str]:
        """Controllers that v2 offers here and lets us hand down."""
        available = set(_read(f"{self._v2}/cgroup.controllers").split()) & {"cpu", "memory", "pids"}
        enabled: set[str] = set()
        for controller in available:
            try:
                _write(f"{self._v2}/cgroup.subtree_control", f"+{controller}")
                enabled.add(controller)
            except OSError:
                pass
        return enabled


class Counters:
    """Open descriptors of a sandbox's usage files: readable from inside, where no cgroup file system is mounted."""

    def __init__(self, files: dict[str, str]) -> None:
        self.fds = {name: os.open(path, os.O_RDONLY | os.O_CLOEXEC) for name, path in files.items()}

    def usage(self) -> dict[str, float]:
        """`{"cpu_s", "memory_peak_bytes"}`; zero where the host does not count."""
        text = self._text("cpu")
        cpu_s = int(text.split()[1]) / 1e6 if text.startswith("usage_usec") else int(text or 0) / 1e9
        return {"cpu_s": cpu_s, "memory_peak_bytes": int(self._text("peak") or 0)}

    def oom_kills(self) -> int:
        """How often the memory limit killed a process of it."""
        words = self._text("oom").split()
        return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()

    def _text(self, name: str) -> str:
        fd = self.fds.get(name)
        if fd is None:
            return ""
        try:
            return os.pread(fd, 4096, 0).decode()
        except OSError:  # the group is gone
            return ""


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, value: object) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)
