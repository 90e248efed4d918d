"""Every vault passes the suite that Atoll ships: the key file, those on the network, and the one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.testing.memory_vault import MemoryVault
from atoll.testing.vaults_conformance import VaultsConformance
from atoll.vaults.base import Vault
from atoll.vaults.local_key import LocalKey
from atoll.vaults.transit import Transit, TransitAccess
from atoll.vaults.workos import Workos
from tests.vaults.fake_workos import FakeWorkos, serving
from tests.vaults.openbao import OpenBao


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


class TestTransit(VaultsConformance):
    @pytest.fixture
    async def vaults(self, openbao: OpenBao) -> AsyncIterator[tuple[Vault, ...]]:
        keys = [openbao.new_key(derived=True), openbao.new_key()]
        async for vaults in started(*(Transit(TransitAccess(openbao.url, key=k, token=openbao.root)) for k in keys)):
            yield vaults


class TestWorkos(VaultsConformance):
    @pytest.fixture
    async def vaults(self, workos: FakeWorkos, workos_url: str) -> AsyncIterator[tuple[Vault, ...]]:
        other = FakeWorkos()
        with serving(other) as url:
            one, two = Workos(workos_url, workos.api_key, {"a": "b"}), Workos(url, other.api_key, {"a": "b"})
            async for vaults in started(one, two):
                yield vaults
