"""A Chromium without a window, driven over its DevTools protocol: what a page may do is what a browser lets it do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium")
START_S, CALL_S = 60, 30
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
    "--remote-debugging-port=0",
)  # fmt: skip


class Browser:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = count(1)

    async def call(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """What the browser answers; its events are let go by. `session` is another process's than the tab's."""
        number = next(self._ids)
        asked = {"id": number, "method": method, "params": parameters}
        await self._socket.send(json.dumps(asked if session is None else asked | {"sessionId": session}))
        async with asyncio.timeout(CALL_S):
            while True:
                told = json.loads(await self._socket.recv())
                if told.get("id") == number:
                    assert "error" not in told, told
                    return told["result"]

    async def go(self, url: str) -> None:
        """Until the page is there."""
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(CALL_S):
            while await self.run("document.readyState !== 'complete'"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def run(self, script: str) -> Any:
        """What an expression of the page's own comes to; `refused: <name>` where it throws."""
        done = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            return "refused: " + done["exceptionDetails"]["exception"].get("className", "")
        return done["result"].get("value")

    async def blocked(self) -> set[str]:
        """The addresses of the frames that it did not show, those of other sites too, which have their own process."""
        trees = [await self.call("Page.getFrameTree")]
        for one in (await self.call("Target.getTargets"))["targetInfos"]:
            if one["type"] == "iframe":
                attached = await self.call("Target.attachToTarget", targetId=one["targetId"], flatten=True)
                trees.append(await self.call("Page.getFrameTree", session=attached["sessionId"]))
        frames = [tree["frameTree"] for tree in trees]
        frames += [child for frame in frames for child in frame.get("childFrames", [])]
        return {one["frame"]["unreachableUrl"] for one in frames if "unreachableUrl" in one["frame"]}


@contextmanager
def chromium(data: Path) -> Iterator[str]:
    """The address of its DevTools; `data` is a folder of its own."""
    assert CHROMIUM is not None
    told = data / "DevToolsActivePort"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={data}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + START_S
        while not (lines := told.read_text().split() if told.exists() else []):
            assert process.poll() is None and time.monotonic() < until, "Chromium does not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{lines[0]}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@asynccontextmanager
async def tab(devtools: str) -> AsyncIterator[Browser]:
    """A new one, without the cookies of those before."""
    async with httpx2.AsyncClient(timeout=CALL_S) as http:
        where = (await http.put(f"{devtools}/json/new?about:blank")).json()["webSocketDebuggerUrl"]
    async with connect(where, max_size=2**24, proxy=None) as socket:
        opened = Browser(socket)
        await opened.call("Network.clearBrowserCookies")
        yield opened
        await opened.call("Page.close")
