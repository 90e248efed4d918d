"""A statement of the store that fails after it has worked, as when the answer is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from atoll.records.prepared import Prepared


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, statement: Prepared, errors: list[Exception]) -> Iterator[None]:
    """The statement works, and then raises the next of `errors`, until they are used up."""
    run = Prepared.run

    def fail(self: Prepared, connection: Any, values: Any) -> int:
        changed = run(self, connection, values)
        if self is statement and errors:
            raise errors.pop(0)
        return changed

    with monkeypatch.context() as patched:
        patched.setattr(Prepared, "run", fail)
        yield
