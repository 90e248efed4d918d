"""Keys of the settings: standard ones as long as they stand there, revoked for good, no different in the records."""

from __future__ import annotations

import pytest

from atoll.domain.errors import Unauthenticated
from atoll.domain.key import KeyKind, hash_key
from atoll.services.bootstrap_keys import introduce
from atoll.services.keys import Keys
from atoll.testing.memory_records import MemoryRecords

ONE, TWO = "0123456789abcdef" * 2, "fedcba9876543210" * 2


async def server(records: MemoryRecords, *texts: str) -> Keys:
    keys = Keys(records, bootstrap=texts, cache_s=0)
    await introduce(keys, texts)
    return keys


async def test_it_is_a_standard_key_whose_id_is_the_same_after_every_start() -> None:
    records = MemoryRecords()
    first = await (await server(records, ONE)).authenticate(ONE)
    again = await (await server(records, ONE, TWO)).authenticate(ONE)
    assert first == again and first.kind is KeyKind.STANDARD and not first.admin
    assert len(await records.list_keys()) == 2
    assert hash_key(ONE)[:12] not in first.id


async def test_one_that_the_settings_have_no_more_opens_nothing_here_and_still_elsewhere() -> None:
    records = MemoryRecords()
    old, new = await server(records, ONE), await server(records, TWO)
    with pytest.raises(Unauthenticated):
        await new.authenticate(ONE)
    assert await old.authenticate(ONE)
    assert not await (await server(MemoryRecords())).any_usable()
    nothing = Keys(records)
    assert not await nothing.any_usable()


async def test_a_revoked_one_stays_so() -> None:
    records = MemoryRecords()
    keys = await server(records, ONE)
    await keys.revoke((await keys.authenticate(ONE)).id)
    with pytest.raises(Unauthenticated):
        await (await server(records, ONE)).authenticate(ONE)


async def test_a_rotated_one_is_an_ordinary_key_and_its_old_text_opens_nothing() -> None:
    records = MemoryRecords()
    keys = await server(records, ONE)
    made = await keys.rotate((await keys.authenticate(ONE)).id)
    assert (await (await server(records)).authenticate(made.text)).id == made.key.id
    with pytest.raises(Unauthenticated):
        await (await server(records, ONE)).authenticate(ONE)


async def test_a_text_that_is_another_keys_already_is_left_to_that_one() -> None:
    records = MemoryRecords()
    made = await Keys(records).create("before", text=ONE)
    keys = await server(records, ONE)
    assert (await keys.authenticate(ONE)).id == made.key.id
    assert len(await records.list_keys()) == 1
