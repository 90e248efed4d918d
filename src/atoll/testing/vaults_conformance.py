"""What every vault must do, as tests: subclass `VaultsConformance` and say how a vault is opened.

    class TestMine(VaultsConformance):
        @pytest.fixture
        async def vaults(self, tmp_path):
            yield two_started_vaults_of_different_master_keys

The tests are coroutines: run them with pytest-asyncio (`asyncio_mode = "auto"`). Each holds one sentence of the
contract in `atoll.vaults.base`.
"""

from __future__ import annotations

import asyncio
import secrets

import pytest

from atoll.domain.errors import Corrupt, InvalidInput
from atoll.vaults.base import KEY_BYTES_MAX, KEY_BYTES_MIN, Vault

CONTEXT = "lin_000000000000000000000000"


class VaultsConformance:
    """Give `vaults`: two started vaults of different master keys, closed afterwards."""

    @pytest.fixture
    async def vaults(self) -> tuple[Vault, Vault]:
        raise NotImplementedError("give a fixture `vaults`")

    @pytest.fixture
    def vault(self, vaults: tuple[Vault, Vault]) -> Vault:
        return vaults[0]

    async def test_a_wrapped_key_unwraps_to_itself(self, vault: Vault) -> None:
        for size in (KEY_BYTES_MIN, 32, KEY_BYTES_MAX):
            key = secrets.token_bytes(size)
            assert await vault.unwrap(await vault.wrap(key, CONTEXT), CONTEXT) == key

    async def test_the_key_is_not_in_the_text_and_twice_gives_two(self, vault: Vault) -> None:
        key = secrets.token_bytes(32)
        first, second = await vault.wrap(key, CONTEXT), await vault.wrap(key, CONTEXT)
        assert first != second
        assert key not in first and key not in second

    @pytest.mark.parametrize("size", [0, KEY_BYTES_MIN - 1, KEY_BYTES_MAX + 1])
    async def test_a_key_of_another_size_is_refused(self, vault: Vault, size: int) -> None:
        with pytest.raises(InvalidInput):
            await vault.wrap(bytes(size), CONTEXT)

    async def test_another_context_is_corrupt(self, vault: Vault) -> None:
        wrapped = await vault.wrap(secrets.token_bytes(32), CONTEXT)
        for context in ("", CONTEXT + "0", CONTEXT[:-1], CONTEXT.upper()):
            with pytest.raises(Corrupt):
                await vault.unwrap(wrapped, context)

    async def test_each_changed_bit_and_each_cut_is_corrupt(self, vault: Vault) -> None:
        wrapped = await vault.wrap(secrets.token_bytes(32), CONTEXT)
        for at in range(len(wrapped)):
            changed = bytearray(wrapped)
            changed[at] ^= 1
            with pytest.raises(Corrupt):
                await vault.unwrap(bytes(changed), CONTEXT)
            with pytest.raises(Corrupt):
                await vault.unwrap(wrapped[:at], CONTEXT)
        with pytest.raises(Corrupt):
            await vault.unwrap(wrapped + b"\0", CONTEXT)

    async def test_another_master_key_is_corrupt(self, vaults: tuple[Vault, Vault]) -> None:
        first, second = vaults
        with pytest.raises(Corrupt):
            await second.unwrap(await first.wrap(secrets.token_bytes(32), CONTEXT), CONTEXT)

    async def test_many_at_a_time(self, vault: Vault) -> None:
        keys = [secrets.token_bytes(32) for _ in range(100)]
        wrapped = await asyncio.gather(*(vault.wrap(key, str(number)) for number, key in enumerate(keys)))
        found = await asyncio.gather(*(vault.unwrap(text, str(number)) for number, text in enumerate(wrapped)))
        assert found == keys

    async def test_it_has_a_name_and_closes_twice(self, vault: Vault) -> None:
        assert vault.name
        await vault.close()
        await vault.close()
