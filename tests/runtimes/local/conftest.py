"""The planted world of the network tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.runtimes.local.network import Network
from tests.runtimes.local import planted
from tests.runtimes.local.planted import Sandbox, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(str(tmp_path)) as made:
        yield made


@pytest.fixture
def network(world: World) -> Network:
    network = world.network(resolvers=[planted.PRIVATE_RESOLVER])
    network.start()
    return network


@pytest.fixture
def alice(world: World, network: Network) -> Sandbox:
    return world.sandbox(network, 1)
