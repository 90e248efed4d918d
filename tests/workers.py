"""How `make test` spreads the tests over two workers (pytest-xdist), and how some tests run while no other does.

conftest.py hangs this into pytest. Run without workers, as for a single test, nothing here does anything.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Tests that share a server, or a ground with its oracles: one worker runs them all. Every other file goes by itself.
ROOMS = {
    "tests/blobs/": "object stores",
    "tests/e2e/": "shared server",
    "tests/faults/runtime/": "ground",
    "tests/migration/": "PostgreSQL",
    "tests/records/": "PostgreSQL",
    "tests/security/": "ground",
}


class ByRoom(LoadScopeScheduling):
    """Hands out whole rooms, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((room for folder, room in ROOMS.items() if file.startswith(folder)), file)


@contextmanager
def turn(item: pytest.Item) -> Generator[None]:
    """While the block lasts no other worker runs a test marked `alone`; if this one is, no other worker runs any."""
    config: Any = item.config
    if not hasattr(config, "workerinput"):
        yield
        return
    shared = Path(config.option.basetemp).parent  # the workers' own folders lie in it
    alone = item.get_closest_marker("alone") is not None
    with open(shared / "door.lock", "w") as door, open(shared / "room.lock", "w") as room:
        # Whoever waits for an empty room holds the door meanwhile, or the others would go in and out for ever.
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
