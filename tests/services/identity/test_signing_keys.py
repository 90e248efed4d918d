"""The keys that sign tokens: sealed in the records, replaced in time, and refused everywhere once revoked."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt import PyJWK

from atoll.domain.errors import Corrupt, Unavailable
from atoll.services.identity.signing_keys import EDDSA, RS256, SigningKeys
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault
from tests.services.identity.clocks import Time

DAY_S = 86_400.0


class House:
    """Two servers on one set of records."""

    def __init__(self) -> None:
        self.time, self.records, self.vault = Time(), MemoryRecords(), MemoryVault()
        self.keys, self.other = self.server(), self.server()

    def server(self, algorithm: str = EDDSA) -> SigningKeys:
        return SigningKeys(
            self.records,
            self.vault,
            algorithm=algorithm,
            rotate_s=30 * DAY_S,
            outlived_s=900,
            cache_s=2,
            clock=self.time.clock,
            monotonic=self.time.monotonic,
        )

    async def actions(self) -> list[str]:
        return [event.action for event in await self.records.list_events()]


@pytest.fixture
def house() -> House:
    return House()


async def test_the_first_key_is_made_once_and_everybody_finds_it(house: House) -> None:
    (first, private), (second, _) = await asyncio.gather(house.keys.signer(), house.other.signer())
    assert first == second
    assert len(await house.records.list_signing_keys()) == 1
    found = await house.other.public(first.id)
    assert found is not None
    algorithm, public = found
    assert algorithm == EDDSA
    public.verify(private.sign(b"text"), b"text")  # type: ignore[call-arg]
    assert await house.actions() == ["signing_key.created"]


async def test_no_private_key_lies_in_the_records(house: House) -> None:
    key, private = await house.keys.signer()
    raw = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())[-32:]
    stored = repr(key) + repr(await house.records.list_events())
    assert repr(raw)[2:-1] not in stored and raw not in key.sealed and raw not in key.wrapped
    again, opened = await house.server().signer()
    assert again == key
    assert opened.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())[-32:] == raw


async def test_another_master_key_or_another_row_opens_nothing(house: House) -> None:
    await house.keys.signer()
    house.vault.new_master_key()
    with pytest.raises(Corrupt):
        await house.other.signer()


async def test_a_vault_that_is_down_signs_nothing_new_and_what_is_signed_holds(house: House) -> None:
    key, _ = await house.keys.signer()
    house.vault.available = False
    with pytest.raises(Unavailable):
        await house.other.signer()
    assert await house.other.public(key.id) is not None


async def test_a_key_is_replaced_in_time_and_verifies_as_long_as_its_tokens_last(house: House) -> None:
    first, _ = await house.keys.signer()
    house.time.pass_s(30 * DAY_S - 1)
    assert (await house.keys.signer())[0] == first
    house.time.pass_s(1)
    second, _ = await house.keys.signer()
    assert second.id != first.id
    house.time.pass_s(899)
    assert (await house.other.signer())[0] == second
    assert {key["kid"] for key in (await house.other.jwks())["keys"]} == {first.id, second.id}
    assert await house.other.public(first.id) is not None
    house.time.pass_s(2)
    assert await house.other.public(first.id) is None
    assert {key["kid"] for key in (await house.other.jwks())["keys"]} == {second.id}
    house.time.pass_s(30 * DAY_S)
    await house.keys.signer()
    assert first.id not in {key.id for key in await house.records.list_signing_keys()}


async def test_another_process_finds_a_new_key_at_once(house: House) -> None:
    first, _ = await house.keys.signer()
    await house.other.public(first.id)
    second = await house.keys.rotate("cli")
    assert await house.other.public(second.id) is not None


async def test_unknown_key_ids_make_few_looks(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.keys.signer()
    looks, naps = 0, 0.0
    real = house.records.list_signing_keys

    async def counted() -> object:
        nonlocal looks
        looks += 1
        return await real()

    async def nap(seconds: float) -> None:
        nonlocal naps
        naps += seconds
        house.time.pass_s(seconds)

    monkeypatch.setattr(house.records, "list_signing_keys", counted)
    monkeypatch.setattr("atoll.services.identity.signing_keys.asyncio.sleep", nap)
    for number in range(20):
        assert await house.keys.public(f"sig_{number}") is None
    assert await house.keys.public(None) is None
    assert naps >= 0.2 * (looks - 2)


async def test_a_revoked_key_verifies_nothing_on_any_server(house: House) -> None:
    first, _ = await house.keys.signer()
    await house.other.public(first.id)
    second = await house.keys.rotate("cli", revoke=True)
    assert await house.keys.public(first.id) is None
    house.time.pass_s(2.01)
    assert await house.other.public(first.id) is None
    assert (await house.other.signer())[0] == second
    assert await house.actions() == ["signing_key.created", "signing_key.created", "signing_key.deleted"]


@pytest.mark.parametrize(("algorithm", "kind"), [(EDDSA, "OKP"), (RS256, "RSA")])
async def test_the_key_set_is_what_others_read(house: House, algorithm: str, kind: str) -> None:
    keys = house.server(algorithm)
    key, _ = await keys.signer()
    (shown,) = (await keys.jwks())["keys"]
    assert (shown["kid"], shown["kty"], shown["alg"], shown["use"]) == (key.id, kind, algorithm, "sig")
    assert not {"d", "p", "q", "dp", "dq", "qi", "key_ops"} & set(shown)
    assert PyJWK(shown).key is not None


async def test_another_algorithm_in_the_settings_takes_another_key(house: House) -> None:
    first, _ = await house.keys.signer()
    second, _ = await house.server(RS256).signer()
    assert (second.algorithm, second.id != first.id) == (RS256, True)
    house.time.pass_s(2.01)
    found = await house.other.public(first.id)
    assert found is not None and found[0] == EDDSA
