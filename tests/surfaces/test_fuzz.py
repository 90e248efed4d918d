"""Schemathesis against the whole document on the fake runtime (Q01): no fault, every answer as documented."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from atoll.app import Application
from atoll.domain.key import KeyKind
from atoll.serve import listening
from atoll.settings import Settings
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault

EXAMPLES = 8
ENOUGH_S = 0.25  # for an operation: further examples are not tried once it took so long
HEAD_BYTES = 60_000  # of a request; the server reads a little more
# What a document cannot say: which images exist, and which sessions are in which state.
EXCLUDED = ("positive_data_acceptance", "ignored_auth")  # the second: test_doors, for every route
FAULT = "not_a_server_error"
# How each dialect spells a workspace's id, by the name of the path parameter.
WORKSPACE_IDS: dict[str, Callable[[str], str]] = {
    "ws": str,
    "workspace": lambda ws: str(uuid.UUID(ws.removeprefix("ws_"))),
    "fs": lambda ws: ws.replace("ws_", "fs_"),
}


class Running:
    """A server in a thread of its own, since schemathesis calls and waits."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.url = self.key = ""
        self.session = requests.Session()
        self.session.trust_env = False
        self.http = httpx2.Client(verify=False)  # one for all: each loads the authorities of the world

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self.http.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        tree = {
            "data": self._data,
            "runtime": "fake",
            "server": {"port": 0, "drain_s": 1},
            "admin": {"api_key": secrets.token_hex(32)},
            "agents": {"default": "command"},  # the others would be installed
        }
        records, runtime = MemoryRecords(), FakeRuntime(FakeHost())
        app = Application(Settings.model_validate(tree), records, runtime, None, MemoryBlobs(), MemoryVault())
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with app.running(), listening(app) as self.url:
            self.key = (await app.keys.create("fuzz", kind=KeyKind.OWNER)).text
            self._ready.set()
            await self._stop.wait()
        await app.runtime.shutdown()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder, Running(Path(folder)) as server:
        yield server


def document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        tree = Settings.model_validate({"data": folder, "runtime": "fake"})
        return Application(tree, MemoryRecords(), FakeRuntime(FakeHost())).openapi()


schemathesis.serializer.alias(["application/zstd", "application/vnd.atoll.entries+zstd"], "application/octet-stream")
SCHEMA = schemathesis.openapi.from_dict(document())
ENDLESS = "GET /api/events/stream"  # its answer has no end to wait for; test_events reads it
OPERATIONS = [one for found in SCHEMA.get_all_operations() if (one := found.ok()).label != ENDLESS]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_q01_every_answer_is_as_documented(operation: Any, mode: GenerationMode, running: Running) -> None:
    checks = [check for check in CHECKS.get_all() if check.__name__ not in EXCLUDED]
    bare = operation.definition.raw
    plain_get = bare.get("x-websocket") or not (bare.get("parameters") or bare.get("requestBody"))
    if mode is GenerationMode.NEGATIVE and plain_get:
        return  # nothing that could be wrong; a WebSocket path answers every plain GET with 426

    began = monotonic()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    def try_it(case: Any) -> None:
        if monotonic() - began > ENOUGH_S:
            return
        assume(12 * len(repr(case.query)) < HEAD_BYTES)  # a head that is too long is refused before any route
        if mode is GenerationMode.POSITIVE:
            if "id" in case.path_parameters:
                case.path_parameters["id"] = a_session(running)
            for name, spelled in WORKSPACE_IDS.items():
                if name in case.path_parameters:
                    case.path_parameters[name] = spelled(a_workspace(running))
        if operation.label == "POST /execute" and isinstance(case.body, dict):
            case.body["wait"] = False  # programs by these names fail, which is no fault of the server's
        answer = case.call(base_url=running.url, headers=running.headers, timeout=10, session=running.session)
        told = answer.status_code == 501 and "501" in bare["responses"]  # what this runtime cannot do, it says
        case.validate_response(answer, checks=[one for one in checks if not told or one.__name__ != FAULT])

    try:
        try_it()
    except Unsatisfiable:
        pass  # any text is a good path parameter


def a_workspace(running: Running) -> str:
    """The one named `default`, made again when it was deleted or called otherwise."""
    url, headers = f"{running.url}/v1/workspaces", running.headers
    found = running.http.get(f"{url}?name=default", headers=headers).json()["workspaces"]
    return found[0]["id"] if found else running.http.post(url, headers=headers, json={"name": "default"}).json()["id"]


def a_session(running: Running) -> str:
    """One that runs: the last one, or another when it was stopped or killed."""
    url, headers = f"{running.url}/v1/sessions", running.headers
    found = running.http.get(f"{url}?status=running&limit=1", headers=headers).json()["sessions"]
    if found:
        return found[0]["id"]
    return running.http.post(url, headers=headers, json={"image": "host", "network": "none"}).json()["id"]
