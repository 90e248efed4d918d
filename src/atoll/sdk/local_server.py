"""The note that a running server leaves in its data folder, `server.json`, and whether it is still true.

`atoll up` writes it, `atoll down` and every client on the same machine read it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from atoll.domain.data_folder import DataFolder, default_data_folder

NOTE = "server.json"
_NOTE_BYTES_MAX = 16_384


@dataclass(frozen=True, slots=True)
class LocalServer:
    """Which process serves a data folder, and where. `start_ticks` tells a pid from a later process with its number."""

    pid: int
    url: str
    started_at: float  # Unix seconds
    boot_id: str
    start_ticks: int  # of the process, in clock ticks since boot

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks


def data_folder() -> DataFolder:
    """This machine's own: ATOLL_DATA, else /var/lib/atoll for root and ~/.local/share/atoll for others."""
    named = os.environ.get("ATOLL_DATA")
    return DataFolder(Path(named).expanduser() if named else default_data_folder())


def read_note(data: Path) -> LocalServer | None:
    """What the note says, true or not; None when there is none that can be read."""
    try:
        with open(data / NOTE, "rb") as file:
            value: object = json.loads(file.read(_NOTE_BYTES_MAX))
    except (OSError, ValueError):
        return None
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, Any]", value)
    try:
        return LocalServer(
            pid=int(fields["pid"]),
            url=str(fields["url"]),
            started_at=float(fields["started_at"]),
            boot_id=str(fields["boot_id"]),
            start_ticks=int(fields["start_ticks"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def write_note(data: Path, note: LocalServer) -> None:
    """Replace the note in one step."""
    target = data / NOTE
    fresh = target.with_name(f".{NOTE}.{os.getpid()}")
    fresh.write_text(json.dumps(asdict(note)) + "\n")
    os.replace(fresh, target)


def remove_note(data: Path, pid: int) -> None:
    """Take the note away if it is that process's; a successor's stays."""
    note = read_note(data)
    if note is not None and note.pid == pid:
        (data / NOTE).unlink(missing_ok=True)


def boot_id() -> str:
    """The kernel's id of this boot: after a reboot, pids mean nothing."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """When that process started; None when it does not exist or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
