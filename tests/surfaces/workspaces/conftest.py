"""A workspace of alice's on a server of fakes, ready to be used."""

from __future__ import annotations

from typing import Any

import pytest

from tests.surfaces.workspaces.client import Client


@pytest.fixture
async def ws(house: Any, keys: Any) -> Client:
    answer = await house.call("POST", "/v1/workspaces", json={"name": "tree", "tags": ["a"], "description": "mine"})
    assert answer.status_code == 201, answer.text
    return Client(house, answer.json()["id"], keys.ALICE)
