"""What every records store must do with wrapped keys, as tests: subclass as `RecordsConformance`, with its `stores`.

Each test holds one sentence of the contract in `atoll.records.wrapped_keys`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from atoll.domain.checkpoint import AuditKey
from atoll.domain.errors import StaleVersion
from atoll.domain.wrapped_key import Wrapped, WrappedKey
from atoll.records.base import Records
from atoll.testing.access_keys_conformance import access_key
from atoll.testing.records_conformance import T0, event, key
from atoll.testing.secrets_conformance import secret
from atoll.testing.users_conformance import signing_key
from atoll.testing.webhook_records_conformance import webhook
from atoll.testing.workspace_records_examples import lineage


async def one_of_each(records: Records) -> list[WrappedKey]:
    """The wrapped keys that are stored, by kind."""
    own, kept, signs = lineage(), secret(), signing_key()
    proves = AuditKey("ak_1", b"public", "local", b"audit", T0)
    await records.add_lineage(own)
    await records.add_secret(kept, event(kept.id))
    await records.add_signing_key(signs, event(signs.id))
    await records.add_audit_key(proves, first=True, event=event(proves.id))
    calls = webhook(vault="local")
    await records.add_webhook(calls, event(calls.id), quota=10)
    opens = key()
    await records.add_key(opens, event(opens.id))
    signs_for = access_key(opens.id)
    await records.add_access_key(signs_for, event(signs_for.id), quota=10)
    assert own.key is not None
    return [
        WrappedKey(Wrapped.LINEAGE, own.id, own.vault, own.key),
        WrappedKey(Wrapped.SECRET, kept.id, kept.vault, kept.key),
        WrappedKey(Wrapped.SIGNING_KEY, signs.id, signs.vault, signs.wrapped),
        WrappedKey(Wrapped.AUDIT_KEY, proves.id, proves.vault, proves.key),
        WrappedKey(Wrapped.WEBHOOK, calls.id, calls.vault, calls.secret),
        WrappedKey(Wrapped.ACCESS_KEY, signs_for.id, signs_for.vault, signs_for.secret),
    ]


class WrappedKeyRecordsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    async def test_nothing_is_wrapped_at_first(self, records: Records) -> None:
        assert await records.list_wrapped_keys() == []
        assert dict(await records.count_wrapped_keys()) == {}

    async def test_every_kind_is_listed_counted_and_moved(self, records: Records) -> None:
        keys = await one_of_each(records)
        assert await records.list_wrapped_keys() == keys
        before = await records.list_events()
        for number, one in enumerate(keys):
            await records.swap_wrapped_key(one, b"moved %d" % number, "other")
            counts = await records.count_wrapped_keys()
            assert counts["other"] == number + 1
        moved = [replace(one, key=b"moved %d" % number, vault="other") for number, one in enumerate(keys)]
        assert await records.list_wrapped_keys() == moved
        assert await records.list_events() == before
        stored = await records.get_secret(keys[1].id)
        assert stored is not None and (stored.key, stored.vault) == (b"moved 1", "other")

    async def test_a_key_that_changed_meanwhile_stays(self, records: Records) -> None:
        keys = await one_of_each(records)
        for one in keys:
            for stale in (replace(one, key=b"x"), replace(one, vault="x"), replace(one, id="x")):
                with pytest.raises(StaleVersion):
                    await records.swap_wrapped_key(stale, b"y", "other")
        assert await records.list_wrapped_keys() == keys

    async def test_a_shredded_key_is_none(self, records: Records) -> None:
        own = lineage()
        await records.add_lineage(own)
        assert own.key is not None
        await records.swap_lineage_key(own.id, own.key, None, own.vault, event(own.id))
        assert await records.list_wrapped_keys() == []
        assert dict(await records.count_wrapped_keys()) == {}
