"""Requests that the end of the server cuts are answered or hung up on, without a word in the log of a fault."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from atoll.serve import listening
from atoll.settings.server import Server
from atoll.surfaces.cut_short import CutShort
from atoll.surfaces.execbox.errors import ExecboxDialect


class Endless:
    """An application whose answers have no end; with `begun` their first bytes are sent."""

    def drain(self) -> None:
        """It ends nothing by itself."""

    def __init__(self, begun: bool) -> None:
        self.settings = SimpleNamespace(server=Server(host="127.0.0.1", port=0, frame_bytes=2**20, drain_s=0.1))
        self.asked = asyncio.Event()
        self._begun = begun
        self._app = CutShort(self._answer, ExecboxDialect())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _answer(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        if self._begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        self.asked.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("begun", [False, True])
async def test_nobody_takes_half_an_answer_for_all_and_nothing_looks_like_a_fault(
    begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app: Any = Endless(begun)
    with caplog.at_level(logging.ERROR):
        async with httpx2.AsyncClient(trust_env=False) as client:
            async with listening(app) as url:
                asking = asyncio.create_task(client.get(url))
                async with asyncio.timeout(5):
                    await app.asked.wait()
            if begun:
                with pytest.raises(httpx2.RemoteProtocolError):
                    await asking
            else:
                answer = await asking
                assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    assert [one.message for one in caplog.records if "ASGI" in one.message or one.exc_info] == []
