"""Every vault passes the suite that Atoll ships: the key file, and the one in memory that other tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.testing.memory_vault import MemoryVault
from atoll.testing.vaults_conformance import VaultsConformance
from atoll.vaults.base import Vault
from atoll.vaults.local_key import LocalKey


async def started(*vaults: Vault) -> AsyncIterator[tuple[Vault, ...]]:
    for vault in vaults:
        await vault.start()
    yield vaults
    for vault in vaults:
        await vault.close()


class TestLocalKey(VaultsConformance):
    @pytest.fixture
    async def vaults(self, tmp_path: Path) -> AsyncIterator[tuple[Vault, ...]]:
        async for vaults in started(LocalKey(tmp_path / "a" / "master.key"), LocalKey(tmp_path / "b" / "master.key")):
            yield vaults


class TestMemory(VaultsConformance):
    @pytest.fixture
    async def vaults(self) -> AsyncIterator[tuple[Vault, ...]]:
        async for vaults in started(MemoryVault(), MemoryVault()):
            yield vaults
