"""`atoll keys list`: whose a key is, what plan it has, and what state it is in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from atoll.cli import keys as command
from atoll.services.keys import Keys
from atoll.testing.memory_records import MemoryRecords


@pytest.mark.parametrize("as_json", [False, True])
def test_a_key_whose_parent_ended_is_not_called_active(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = Keys(MemoryRecords())

    async def prepare() -> str:
        first = (await keys.create("first", plan="free")).key
        child = (await keys.create("narrow", parent=first.id, owner=first.owner, plan="free")).key
        await keys.revoke(first.id)
        return child.owner

    owner = asyncio.run(prepare())

    def with_keys(_data: str | None, work: Callable[[Keys], Awaitable[object]]) -> object:
        async def run() -> object:
            return await work(keys)

        return asyncio.run(run())

    monkeypatch.setattr(command, "with_keys", with_keys)
    command.list_(False, None, as_json)
    printed = capsys.readouterr().out
    if as_json:
        (shown,) = json.loads(printed)
        assert (shown["ended_with_parent"], shown["parent"], shown["owner"]) == (True, owner, owner)
    else:
        assert "ended with its parent" in printed and "active" not in printed
        assert "OWNER" in printed and owner in printed and "free" in printed
