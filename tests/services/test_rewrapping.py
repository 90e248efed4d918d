"""Rewrapping: every key moves to another vault, or none of it is lost on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

import pytest

from atoll.domain.errors import Conflict, Corrupt, InvalidInput, Unavailable
from atoll.domain.webhook import Webhook
from atoll.services.audit.signing import Signing
from atoll.services.clock import utc_now
from atoll.services.identity.signing_keys import SigningKeys
from atoll.services.recovery.ownership import claim, hand_over
from atoll.services.rewrapping import Rewrapping, check_vault
from atoll.services.secrets import Secrets
from atoll.services.webhooks.webhooks import secret_context
from atoll.services.workspaces.storage.keys import LineageKeys
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault
from atoll.testing.records_conformance import event
from atoll.vaults.base import Vault
from atoll.vaults.local_key import LocalKey

from .conftest import ALICE

HOOK = b"w" * 32


class Other(MemoryVault):
    name: ClassVar[str] = "other"


def only(*vaults: Vault) -> Callable[[str], Awaitable[Vault]]:
    async def get(name: str) -> Vault:
        for vault in vaults:
            if vault.name == name:
                return vault
        raise InvalidInput(f"no vault {name}")

    return get


async def filled(records: MemoryRecords, vault: Vault) -> tuple[bytes, str]:
    """One key of each kind; the data key of the lineage, and the id of the signing key."""
    keys = LineageKeys(records, vault)
    lineage = await keys.new("lin_1", ALICE.id)
    await records.add_lineage(lineage)
    secrets = Secrets(records, vault)
    await secrets.create(ALICE, "TOKEN", b"t0p")
    await secrets.change(ALICE, "TOKEN", value=b"t1p")
    await Signing(records, vault).rotate("system")
    signs = await SigningKeys(records, vault).rotate("system")
    wrapped = await vault.wrap(HOOK, secret_context("hook_1"))
    hook = Webhook("hook_1", ALICE.id, "https://example.com/", ("*",), utc_now(), vault=vault.name, secret=wrapped)
    await records.add_webhook(hook, event("hook_1"), quota=10)
    return await keys.key("lin_1"), signs.id


async def assert_readable(records: MemoryRecords, vault: Vault, lineage_key: bytes) -> None:
    assert await LineageKeys(records, vault).key("lin_1") == lineage_key
    secrets = Secrets(records, vault)
    assert await secrets.values.open(await secrets.get(ALICE, "TOKEN")) == b"t1p"
    known, wrong = await Signing(records, vault).proved()
    assert len(known) == 1 and not wrong
    hook = await records.get_webhook("hook_1")
    assert hook is not None and await vault.unwrap(hook.secret, secret_context(hook.id)) == HOOK


async def test_every_kind_of_key_moves(tmp_path: Path) -> None:
    records, old, new = MemoryRecords(), MemoryVault(), Other()
    key, _ = await filled(records, old)
    with pytest.raises(Conflict, match=r"5 by the vault 'memory'.*atoll vault rewrap"):
        await check_vault(records, new)
    moved = await Rewrapping(records, new, only(old, new)).run()
    assert dict(moved) == {"lineage": 1, "secret": 1, "audit key": 1, "signing key": 1, "webhook": 1}
    await check_vault(records, new)
    await assert_readable(records, new, key)
    with pytest.raises(Conflict):
        await check_vault(records, old)
    assert [event.action for event in await records.list_events()][-1] == "vault.rewrapped"
    again = await Rewrapping(records, new, only(new)).run()  # nothing of the old vault is needed any more
    assert again == moved
    await assert_readable(records, new, key)


async def test_what_is_cut_short_is_finished_by_the_next_run() -> None:
    records, old, new = MemoryRecords(), MemoryVault(), Other()
    key, _ = await filled(records, old)
    swapped = 0
    swap = records.swap_wrapped_key

    async def cut(*args: object) -> None:
        nonlocal swapped
        swapped += 1
        if swapped > 2:
            raise Unavailable("the records are down")
        await swap(*args)  # type: ignore[arg-type]

    records.swap_wrapped_key = cut  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await Rewrapping(records, new, only(old, new)).run()
    records.swap_wrapped_key = swap  # type: ignore[method-assign]
    with pytest.raises(Conflict):  # neither of the two can serve now
        await check_vault(records, new)
    with pytest.raises(Conflict):
        await check_vault(records, old)
    await Rewrapping(records, new, only(old, new)).run()
    await check_vault(records, new)
    await assert_readable(records, new, key)


async def test_a_newer_master_key_of_the_same_vault(tmp_path: Path) -> None:
    old, new = LocalKey(tmp_path / "old.key"), LocalKey(tmp_path / "new.key")
    for vault in (old, new):
        await vault.start()
    records = MemoryRecords()
    key, _ = await filled(records, old)
    with pytest.raises(Corrupt, match=r"5 of 5 keys .* lineage lin_1: wrapped by the master key"):
        await Rewrapping(records, new, only(new)).run()
    await Rewrapping(records, new, only(new), older=old).run()
    await assert_readable(records, new, key)
    await Rewrapping(records, new, only(new), older=old).run()


async def test_a_key_that_cannot_be_unwrapped_is_named_and_the_others_move() -> None:
    records, old, new = MemoryRecords(), MemoryVault(), Other()
    await filled(records, old)
    lost = await LineageKeys(records, MemoryVault()).new("lin_lost", ALICE.id)
    await records.add_lineage(lost)
    with pytest.raises(Corrupt, match="1 of 6 keys could not be moved, such as lineage lin_lost"):
        await Rewrapping(records, new, only(old, new)).run()
    assert dict(await records.count_wrapped_keys()) == {"other": 5, "memory": 1}


async def test_a_vault_that_is_not_there_moves_nothing() -> None:
    records, old, new = MemoryRecords(), MemoryVault(), Other()
    await filled(records, old)
    new.available = False
    with pytest.raises(Unavailable):
        await Rewrapping(records, new, only(old, new)).run()
    with pytest.raises(InvalidInput):
        await Rewrapping(records, Other(), only()).run()
    assert dict(await records.count_wrapped_keys()) == {"memory": 5}


async def test_the_second_store_goes_along_and_anothers_does_not() -> None:
    store, old, new, stranger = MemoryBlobs(), MemoryVault(), Other(), MemoryVault()
    await store.start()
    assert not await hand_over(store, only(old, new), new)  # nobody's yet
    await claim(store, old)
    assert not await hand_over(store, only(stranger, new), new)
    with pytest.raises(Conflict):
        await claim(store, new)
    assert await hand_over(store, only(old, new), new)
    await claim(store, new)
    assert not await hand_over(store, only(old, new), new)
