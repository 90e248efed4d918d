"""Notices when something in a folder changes; `watch` of a workspace waits for it between two syncs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from watchfiles import watch

from atoll.sdk.sync.ignore import TEMPORARY

DEBOUNCE_MS = 300  # a burst of changes is one
STEP_MS = 50


class Watcher:
    """`wait` blocks until something changed or the time is over; `stop` ends it from another thread."""

    def __init__(self, folder: str, poll_s: float) -> None:
        self._stop = threading.Event()
        self._events: Iterator[object] = watch(
            folder,
            watch_filter=lambda change, path: not os.path.basename(path).startswith(TEMPORARY.decode()),
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            stop_event=self._stop,
            rust_timeout=max(1, round(poll_s * 1000)),
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )

    def wait(self) -> bool:
        """False when it is over."""
        return next(self._events, None) is not None and not self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()
