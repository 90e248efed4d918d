"""How `make test` spreads the tests over two workers (pytest-xdist), and how some tests run while no other does.

conftest.py hangs this into pytest. Run without workers, as for a single test, nothing here does anything.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ENDING_S = 60.0  # for a worker to take down what its tests started
ENDED_S = 1.0  # that it may still be there after its last test

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


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def end_when_terminated() -> None:
    """A SIGTERM, as of CI's time limit, ends the run like Ctrl-C: what the tests started is taken down."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def start_worker(config: pytest.Config) -> None:
    """One interrupt is enough for a worker: a second one would cut short how its servers are taken down."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, lambda *_: None)  # no SIG_IGN, which programs started from here on would inherit
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the one that hands out the tests has it too, and interrupts
    at_work = os.open(_shared(config) / f"at-work-{os.getpid()}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(at_work, fcntl.LOCK_EX)
    config.add_cleanup(lambda: os.close(at_work))


def end_workers(config: pytest.Config) -> None:
    """A run that was cut short (Ctrl-C, -x) waits for its workers to take down what their tests started."""
    for file in config._tmp_path_factory.getbasetemp().glob("at-work-*"):  # pyright: ignore
        with open(file) as at_work:
            deadline = time.monotonic() + ENDING_S
            while not _unlocked(at_work.fileno()) and time.monotonic() < deadline:
                if time.monotonic() > deadline - ENDING_S + ENDED_S:  # else it is just ending by itself
                    os.kill(int(file.name.rpartition("-")[2]), signal.SIGINT)
                time.sleep(0.1)


def _unlocked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _shared(config: Any) -> Path:
    """The folder in which those of the workers lie."""
    return Path(config.option.basetemp).parent


@contextmanager
def turn(item: pytest.Item) -> Generator[None]:
    """While the block lasts no other worker runs a test marked `alone`; if this one is, no other worker runs any."""
    if not is_worker(item.config):
        yield
        return
    shared = _shared(item.config)
    alone = item.get_closest_marker("alone") is not None
    with open(shared / "door.lock", "w") as door, open(shared / "room.lock", "w") as room:
        # Whoever waits for an empty room holds the door meanwhile, or the others would go in and out for ever.
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
