"""Copy journal: what this server has copied to the second store, in one file, a line of JSON for each step.

Nothing in the second store is ever deleted that is not in here: what lies there may be another server's. A journal that
is lost, or is of another store, costs one reading of the copies for the next backup, and leaves what was not needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any

from atoll.services.recovery.verified_copying import Contents

STALE_LINES = 1_000  # beyond twice what is in it: then it is written anew


class CopyJournal:
    """The keys that were copied, with their contents where those are known; blocking, for any thread. OSError."""

    def __init__(self, file: Path, store: str) -> None:
        self._file = file
        self._store = store
        self.copied: dict[str, Contents | None] = {}
        self._unneeded: dict[str, datetime] = {}  # since when nothing here refers to it
        self._lines = 0
        self._lock = RLock()

    def load(self) -> None:
        """Read it; a damaged end, or a journal of another store, is forgotten."""
        self.copied.clear()
        self._unneeded.clear()
        try:
            with self._file.open(encoding="utf-8") as lines:
                if json.loads(next(lines, "null")) == {"store": self._store}:
                    for line in lines:
                        self._apply(*json.loads(line))
        except (OSError, ValueError, TypeError, LookupError, OverflowError):
            pass
        self._rewrite()

    def add(self, contents: Mapping[str, Contents | None]) -> None:
        """They are in the second store."""
        self._write([("copied", key, *([one.bytes, one.sha256] if one else ())) for key, one in contents.items()])

    def settle(self, named: Collection[str], now: datetime) -> dict[str, datetime]:
        """Since when each copy is needed no more that is not `named`: since now, if that is news."""
        with self._lock:
            again = [("needed", key) for key in self._unneeded if key in named]
            news = [key for key in self.copied if key not in named and key not in self._unneeded]
            self._write([*again, *(("unneeded", key, now.timestamp()) for key in news)])
            return dict(self._unneeded)

    def remove(self, keys: Iterable[str]) -> None:
        """They are in the second store no more."""
        with self._lock:
            self._write([("removed", key) for key in keys if key in self.copied])

    def known(self) -> dict[str, Contents]:
        """The contents of those copies of which they are known."""
        with self._lock:
            return {key: contents for key, contents in self.copied.items() if contents is not None}

    def _apply(self, step: str, key: str, *rest: Any) -> None:
        match step, rest:
            case "copied", (int(size), str(sha256)):
                self.copied[key] = Contents(size, sha256)
            case "copied", ():
                self.copied[key] = None
            case "unneeded", (float(at) | int(at),):
                self._unneeded[key] = datetime.fromtimestamp(at, UTC)
            case "needed", ():
                self._unneeded.pop(key, None)
            case "removed", ():
                self.copied.pop(key, None)
                self._unneeded.pop(key, None)
            case _:
                raise ValueError(f"no step of a journal: {step}")
        self._lines += 1

    def _write(self, steps: Sequence[tuple[Any, ...]]) -> None:
        if not steps:
            return
        with self._lock:
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(step) + "\n" for step in steps)
            for step in steps:
                self._apply(*step)
            if self._lines > 2 * (len(self.copied) + len(self._unneeded)) + STALE_LINES:
                self._rewrite()

    def _rewrite(self) -> None:
        partial = self._file.with_name(self._file.name + ".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in self._all())
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._file)
        self._lines = len(self.copied) + len(self._unneeded)

    def _all(self) -> Iterator[object]:
        yield {"store": self._store}
        for key, contents in self.copied.items():
            yield ["copied", key, *([contents.bytes, contents.sha256] if contents else ())]
        for key, since in self._unneeded.items():
            yield ["unneeded", key, since.timestamp()]
