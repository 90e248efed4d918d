"""The oracles of the battery that need only a runtime: the host is as it was, nothing leaked, no secret lies about.

The attack and fault tests look before and after each case; nothing here changes anything but its own canary files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from atoll.runtimes.local.slots import BLOCK, CLAIMS, uid_base

# what changes by itself, or with the number of processes
_VOLATILE = (
    "random", "pty/nr", "ns_last_pid", "dentry-state", "file-nr", "inode-nr", "inode-state", "aio-nr",
    "quota/", "sched_domain", "stat_refresh", "compact_memory", "drop_caches",
)  # fmt: skip
_PIECE_BYTES = 2**20
_OVERLAP_BYTES = 64  # no secret is longer
_SYSCTL_FOLDERS = ("/proc/sys/kernel", "/proc/sys/vm", "/proc/sys/fs")


class HostOracle:
    """O1: a flag file that nobody may read, canary files, sysctls, packet filter and mounts of the host."""

    def __init__(self, folder: Path) -> None:
        self.flag_text = f"flag-{secrets.token_hex(16)}"
        self.flag = Path(f"/flag-host-{secrets.token_hex(4)}")
        self.flag.write_text(self.flag_text)
        self.flag.chmod(0o644)
        # older than its last change: the next read would be noted (relatime)
        os.utime(self.flag, (1, 2))
        self.canaries = [folder / f"canary{n}" for n in range(3)]
        for canary in self.canaries:
            canary.write_bytes(os.urandom(256))
            canary.chmod(0o666)
        self._before = self.look()

    def remove(self) -> None:
        self.flag.unlink(missing_ok=True)

    def look(self) -> dict[str, object]:
        return {
            "flag read at": self.flag.stat().st_atime if self.flag.exists() else "the flag is gone",
            "canaries": [_fingerprint(path) for path in self.canaries],
            "sysctls": _sysctls(),
            "packet filter": _filter_tables(),
            "mounts": _mounts(),
        }

    def check(self) -> None:
        now = self.look()
        for name, was in self._before.items():
            assert now[name] == was, f"O1: {name} of the host changed: {_difference(was, now[name])}"


class LeakOracle:
    """O2: what a node's sandboxes have on the machine, counted in a way that two equal states compare equal."""

    def __init__(self, data: Path) -> None:
        self._data = data.resolve()
        self.mark = hashlib.sha256(str(self._data).encode()).hexdigest()[:8]  # as LocalRuntime derives it

    def look(self) -> dict[str, object]:
        """Spares are taken out: the node makes them when it finds the time. Each is one of what a sandbox has.

        So are keepers, which live on for a while, and the mounts of trees that were in use a moment ago.
        """
        node, pids, folders = self.node(), self.processes(), os.listdir(self._data / "run" / "sandboxes")
        spares = sum(name.startswith(".spare") for name in folders)
        keepers = len(self.keepers())
        extra = spares + keepers
        groups = Counter(path.split("/")[4] for path in self.cgroups())
        open_files = descriptors(node) if node else {}
        return {
            "node": "alive" if node else "gone",
            "processes": len(pids) - extra - self.keepers_children(),
            "zombies": sum(1 for pid in children(node) if state(pid) == "Z") if node else 0,
            "cgroups": {base: count - extra for base, count in sorted(groups.items())},
            "network namespaces": len({_link(f"/proc/{pid}/ns/net") for pid in pids}) - extra,
            "mounts of the node": len(_lines(f"/proc/{node}/mountinfo")) - len(self.mounted_trees()) if node else 0,
            "loop devices": sorted(set(self.loops()) - set(self.mounted_trees())),
            "folders": len(folders) - spares,
            "descriptors of the node": {
                kind: count - (spares if kind == "socket" else extra if _is_counter(kind) else 0)
                for kind, count in open_files.items()
            },
        }

    def node(self) -> int:
        """The pid of the node that holds the lock; 0 when there is none."""
        try:
            lock = os.stat(self._data / "run" / "node.lock")
        except FileNotFoundError:
            return 0
        wanted = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
        for line in _lines("/proc/locks"):
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == wanted:
                return int(fields[4])
        return 0

    def processes(self) -> list[int]:
        """Every process whose user is of a range that this node claimed; not those that init has yet to reap."""
        ranges = self.uid_ranges()
        found: list[int] = []
        for name in os.listdir("/proc"):
            if name.isdigit() and state(int(name)) != "Z":
                try:
                    owner = _uid(int(name))
                except (OSError, StopIteration):
                    continue
                if any(owner in span for span in ranges):
                    found.append(int(name))
        return found

    def uid_ranges(self) -> list[range]:
        spans: list[range] = []
        for claim in Path(CLAIMS).iterdir() if Path(CLAIMS).exists() else []:
            if claim.name.isdigit() and claim.read_text() == str(self._data / "run" / "sandboxes"):
                first = int(claim.name) * BLOCK
                spans.append(range(uid_base(first), uid_base(first + BLOCK)))
        return spans

    def keepers(self) -> list[str]:
        """Trees that have a keeper now, or whose keeper is being buried."""
        folder = self._data / "run" / "keepers"
        return os.listdir(folder) if folder.exists() else []

    def keepers_children(self) -> int:
        """Operations of keepers at work."""
        states = [_text(self._data / "run" / "keepers" / name / "sandbox.json") for name in self.keepers()]
        return sum(len(children(json.loads(state.rstrip())["pid"])) for state in states if state)

    def mounted_trees(self) -> list[str]:
        """The loop devices of trees that the node has mounted."""
        lines = (line.split() for line in _lines(f"/proc/{self.node()}/mountinfo"))
        wanted = f"{self._data}/run/trees/"
        return sorted(fields[fields.index("-") + 2].rsplit("/")[-1] for fields in lines if fields[4].startswith(wanted))

    def cgroups(self) -> list[str]:
        return [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/atoll-{self.mark}/*") if path.is_dir()]

    def loops(self) -> list[str]:
        found = Path("/sys/block").glob("loop*/loop/backing_file")
        return sorted(path.parts[3] for path in found if str(self._data) in _text(path))


class SecretOracle:
    """O6: strings that pass through the runtime and may be in no file of its folder and in no process title."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.in_environment = f"canary-env-{secrets.token_hex(12)}"
        self.in_stdin = f"canary-stdin-{secrets.token_hex(12)}"
        self.in_file = f"canary-file-{secrets.token_hex(12)}"

    def check(self) -> None:
        wanted = [text.encode() for text in (self.in_environment, self.in_stdin, self.in_file)]
        for top, folders, names in os.walk(self._data):
            if "templates" in folders:
                folders.remove("templates")
            for name in names:
                path = os.path.join(top, name)
                if stat.S_ISREG(_mode(path)):
                    for piece in _written(path):
                        assert not any(text in piece for text in wanted), f"O6: a secret is in {path}"
        for name in os.listdir("/proc"):
            if name.isdigit():
                title = _bytes(f"/proc/{name}/cmdline") + _bytes(f"/proc/{name}/comm")
                assert not any(text in title for text in wanted), f"O6: a secret is in the title of {name}: {title!r}"


def _written(path: str) -> Iterator[bytes]:
    """What was ever written to a file, in pieces that overlap; the holes of an image are passed over."""
    try:
        with open(path, "rb", buffering=0) as file:
            at = 0
            while True:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                while at < end:
                    yield os.pread(file.fileno(), min(_PIECE_BYTES + _OVERLAP_BYTES, end - at), at)
                    at += _PIECE_BYTES
                at = end
    except OSError:  # it is gone, or there is nothing behind a hole (ENXIO)
        return


def _is_counter(kind: str) -> bool:
    """A file of a cgroup, of which each sandbox has some open in the node."""
    return "." in kind and not kind.startswith("node.")


def children(pid: int) -> list[int]:
    text = _bytes(f"/proc/{pid}/task/{pid}/children").decode()
    return [int(word) for word in text.split()]


def descriptors(pid: int) -> dict[str, int]:
    """Kinds of open descriptors and how many; user namespaces that are made ahead are not counted."""
    kinds: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        target = _link(f"/proc/{pid}/fd/{name}")
        if target and not target.startswith("user:"):
            kinds[target.split(":")[0] if not target.startswith("/") else os.path.basename(target)] += 1
    return dict(kinds)


def _sysctls() -> dict[str, str]:
    found: dict[str, str] = {}
    for top in _SYSCTL_FOLDERS:
        for folder, _, names in os.walk(top):
            for name in names:
                path = f"{folder}/{name}"
                if not any(part in path for part in _VOLATILE):
                    try:
                        found[path] = Path(path).read_text()
                    except OSError:
                        continue
    return found


def _filter_tables() -> list[str]:
    """The rules without counters; tables of other servers on this machine are theirs."""
    try:
        told = subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, timeout=10, check=False)
    except FileNotFoundError:
        return []
    tables = re.split(r"^(?=table )", told.stdout.decode(), flags=re.MULTILINE)
    return sorted(table for table in tables if table and "atoll-" not in table.splitlines()[0])


def _mounts() -> list[str]:
    """Where something is mounted; what network tests pin is theirs."""
    lines = (line.split() for line in _lines("/proc/self/mountinfo"))
    return sorted(fields[4] for fields in lines if fields[fields.index("-") + 1] != "nsfs")


def _fingerprint(path: Path) -> tuple[object, ...]:
    if not path.exists():
        return (str(path), "gone")
    info = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return (str(path), content, info.st_uid, info.st_gid, info.st_mode, info.st_mtime_ns)


def _difference(was: object, now: object) -> str:
    if isinstance(was, dict) and isinstance(now, dict):
        return str({key: (was.get(key), now.get(key)) for key in {*was, *now} if was.get(key) != now.get(key)})
    return f"{was!r} -> {now!r}"


def _uid(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return int(next(line for line in file if line.startswith("Uid:")).split()[1])


def state(pid: int) -> str:
    fields = _bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[0].decode() if fields else ""


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _lines(path: str) -> list[str]:
    return _bytes(path).decode(errors="replace").splitlines()


def _text(path: Path) -> str:
    return _bytes(str(path)).decode(errors="replace")


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
