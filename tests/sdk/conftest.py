from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.sdk import Workspace
from atoll.sdk._io import close_connections
from tests.sdk.cutting_proxy import CuttingProxy
from tests.sdk.fake_tasks import FakeTasks
from tests.sdk.fake_workspaces import FakeWorkspaces
from tests.sdk.fake_workspaces import Workspace as Stored
from tests.sdk.stand_in import KEY, StandIn


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A server that ATOLL_URL and ATOLL_API_KEY name."""
    stand_in = StandIn(tmp_path)
    monkeypatch.setenv("ATOLL_URL", stand_in.url)
    monkeypatch.setenv("ATOLL_API_KEY", KEY)
    monkeypatch.setenv("ATOLL_DATA", str(tmp_path / "data"))
    yield stand_in
    close_connections()
    stand_in.close()


@pytest.fixture
def proxy(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[CuttingProxy]:
    """A proxy before that server, which ATOLL_URL then names."""
    proxy = CuttingProxy(server.port)
    monkeypatch.setenv("ATOLL_URL", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def fake(server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeWorkspaces:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return server.routes.workspaces


@pytest.fixture
def tasks(server: StandIn, fake: FakeWorkspaces) -> FakeTasks:
    return server.routes.tasks


@pytest.fixture
def stored(fake: FakeWorkspaces) -> Stored:
    return fake.make("mine")


@pytest.fixture
def mine(stored: Stored) -> Workspace:
    return Workspace.get("mine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made
