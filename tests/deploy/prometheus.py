"""A real Prometheus for tests, from its Debian package; without it they say so and are skipped."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

PROGRAM, TOOL = shutil.which("prometheus"), shutil.which("promtool")
needed = pytest.mark.skipif(PROGRAM is None or TOOL is None, reason="prometheus is not installed")
DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
READY_S = 20.0


async def promtool(*words: str | Path) -> str:
    """What it printed; the test fails when it does."""
    assert TOOL is not None
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(TOOL, *words, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    async with asyncio.timeout(40):
        printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


class Prometheus:
    """One that runs."""

    def __init__(self, url: str, http: httpx2.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def ask(self, what: str, **parameters: Any) -> Any:
        """The data of an answer of its API."""
        answer = await self._http.get(f"{self._url}/api/v1/{what}", params=parameters)
        assert answer.status_code == 200, (what, parameters, answer.text)
        return answer.json()["data"]

    async def series(self, expression: str) -> list[Any]:
        return (await self.ask("query", query=expression))["result"]


@asynccontextmanager
async def scraping(target: str, folder: Path) -> AsyncIterator[Prometheus]:
    """One that asks `target` every second, with the alerts of deploy/."""
    assert PROGRAM is not None
    config = folder / "prometheus.yml"
    config.write_text(
        (DEPLOY / "prometheus" / "prometheus.yml")
        .read_text()
        .replace("15s", "1s")
        .replace("alerts.yml", str(RULES))
        .replace("127.0.0.1:8080", target)
    )
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx2.AsyncClient(timeout=10) as http:
            await _ready(http, f"http://127.0.0.1:{port}/-/ready")
            yield Prometheus(f"http://127.0.0.1:{port}", http)
    finally:
        process.kill()
        await process.wait()


async def _ready(http: httpx2.AsyncClient, url: str) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            try:
                if (await http.get(url)).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.05)
