"""A request whose key another server forgets while it is looked up; the conformance suite has what holds otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete

from atoll.domain.errors import Unavailable
from atoll.domain.idempotency import IdempotentRequest
from atoll.records import sql_idempotency
from atoll.records.schema import idempotent_requests
from atoll.records.sql import open_records
from tests.records.migrated import migrated_sqlite

NOW = datetime(2026, 1, 31, tzinfo=UTC)
FIRST = IdempotentRequest("key_1", "hash", "what", "one server", NOW)
SECOND = IdempotentRequest("key_1", "hash", "what", "another", NOW)


class Vanishing:
    """Finds nothing; what was there is forgotten as it looks, if `forgets`."""

    def __init__(self, *, forgets: bool) -> None:
        self.forgets = forgets

    def first(self, connection: Connection, _values: Any) -> None:
        if self.forgets:
            connection.execute(delete(idempotent_requests))


@pytest.mark.parametrize("forgets", [True, False])
async def test_one_that_is_forgotten_meanwhile_is_begun_anew_or_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    records = open_records(await migrated_sqlite(tmp_path / "atoll.db"))
    await records.start()
    try:
        since = NOW - timedelta(days=1)
        assert await records.begin_request(FIRST, forgotten=since) is None
        assert await records.begin_request(SECOND, forgotten=since) == FIRST
        with monkeypatch.context() as patch:
            patch.setattr(sql_idempotency, "_GET", Vanishing(forgets=forgets))
            if forgets:
                assert await records.begin_request(SECOND, forgotten=since) is None
            else:
                with pytest.raises(Unavailable, match="try again"):
                    await records.begin_request(SECOND, forgotten=since)
        assert await records.begin_request(FIRST, forgotten=since) == (SECOND if forgets else FIRST)
    finally:
        await records.close()
