"""What is installed: the folder of each agent's program, as a read-only layer of sandboxes, and what is said of it.

`installs` makes them; `Templates` puts them below a sandbox, `atoll agent` lists them. A folder of its final name is
whole: it is filled under another and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from atoll.agents.base import Package
from atoll.domain.errors import InvalidInput, Unavailable
from atoll.domain.sandbox import AGENTS_FOLDER

PARTIAL = ".partial"
SEEN_S = 5.0
LAYER, DESCRIPTION = "layer", "installed.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings want of one agent: a package, exactly, or a program that is on this machine already."""

    package: Package
    hashes: tuple[str, ...]  # its archive has one of these; none: as the registry says
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """One that is there. `folder` is a layer: what a sandbox sees of it lies below `AGENTS_FOLDER`."""

    agent: str
    version: str
    source: str  # pip, npm, or the folder that it was copied from
    folder: Path
    bytes: int
    files: int
    installed_at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an installation is. step: waiting, fetching, copying, checking, unpacking, done."""

    agent: str
    step: str
    done_bytes: int = 0
    total_bytes: int | None = None


Told = Callable[[Progress], None]


def inside(agent: str) -> str:
    """Where a sandbox sees the agent's program: `Place.layer`."""
    return f"{AGENTS_FOLDER}/{agent}"


def describe(partial: Path, made: Installed) -> None:
    """Write what is said of it beside its layer, the last thing before it is renamed."""
    said = asdict(made) | {"folder": "", "installed_at": made.installed_at.timestamp()}
    (partial / DESCRIPTION).write_text(json.dumps(said, indent=1) + "\n")


def read(folder: Path) -> Installed | None:
    """What the folder holds; None where that is not what was installed: something is missing or of another size."""
    try:
        said = cast("Mapping[str, Any]", json.loads((folder / DESCRIPTION).read_text()))
        made = Installed(
            agent=str(said["agent"]),
            version=str(said["version"]),
            source=str(said["source"]),
            folder=folder / LAYER,
            bytes=int(said["bytes"]),
            files=int(said["files"]),
            installed_at=datetime.fromtimestamp(float(said["installed_at"]), UTC),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return made if measure(made.folder) == (made.bytes, made.files) else None


def measure(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files below it."""
    held = count = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                held += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
            count += 1
    return held, count


class AgentLayers:
    """Which layer a sandbox gets that asks for an agent. Without a store nothing is installed."""

    def __init__(self, store: Path | None, wanted: Mapping[str, Wanted]) -> None:
        self._store = store
        self._wanted = wanted
        self._seen: dict[str, tuple[str, tuple[int, int], float]] = {}

    @property
    def agents(self) -> Sequence[str]:
        """Those that have a program."""
        return sorted(self._wanted)

    def version(self, agent: str) -> str:
        """The version that the settings want; of a copied program one that tells changed files apart."""
        wanted = self._of(agent)
        return wanted.package.version if wanted.folder is None else _of_folder(wanted.folder)

    def installed(self, agent: str) -> Installed | None:
        """The program that the settings want, where it is installed. InvalidInput for an agent that has none."""
        if self._store is None:
            return None
        return read(self._store / f"{agent}-{self.version(agent)}")

    def layer(self, agent: str) -> str:
        """The layer's folder. Unavailable, with what to do, where it is not installed. Looks at all its files, unless
        it has done so moments ago, and nobody has removed or replaced them since."""
        seen = self._seen.get(agent)
        if seen is not None and time.monotonic() < seen[2] and _mark(seen[0]) == seen[1]:
            return seen[0]
        found = self.installed(agent)
        mark = None if found is None else _mark(str(found.folder))
        if found is None or mark is None:
            raise Unavailable(f"the agent {agent} is not installed here: run `atoll agent install {agent}`")
        self._seen[agent] = (str(found.folder), mark, time.monotonic() + SEEN_S)
        return str(found.folder)

    def _of(self, agent: str) -> Wanted:
        wanted = self._wanted.get(agent)
        if wanted is None:
            known = ", ".join(sorted(self._wanted)) or "none"
            raise InvalidInput(f"agent {agent!r} has no program to install; there are: {known}", field="agent")
        return wanted


NO_AGENTS = AgentLayers(None, {})


def _mark(layer: str) -> tuple[int, int] | None:
    """What changes when the layer is put there anew; None: it is gone."""
    try:
        found = os.stat(os.path.join(os.path.dirname(layer), DESCRIPTION))
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _of_folder(folder: Path) -> str:
    """Names, sizes and times of its files: whoever puts another version there gets it."""
    if not folder.is_dir():
        raise Unavailable(f"the agent's folder {folder} is not there")
    digest = hashlib.sha256(os.fsencode(folder))
    for root, folders, names in os.walk(folder):
        folders.sort()
        for path in sorted(os.path.join(root, name) for name in names):
            try:
                found = os.stat(path)
            except OSError:
                continue  # a link to nothing
            digest.update(os.fsencode(path) + f"\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return f"local-{digest.hexdigest()[:12]}"
