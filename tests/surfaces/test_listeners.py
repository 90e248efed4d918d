"""Each service at a port of its own: only its routes, its own form of health and documents, the same objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atoll.app import Application
from atoll.serve import accepting_all, listen
from atoll.surfaces.listeners import SERVICES, TESTBASE
from tests.surfaces.conftest import ALICE, BOB, House, Opener

NAMES = [one.name for one in SERVICES]
EVERYTHING = {"listen": dict.fromkeys(NAMES, 0)}
# What only the port that serves everything has: it is of none of the systems, or of none that had a port.
NOWHERE_ELSE = ("/v1/workspaces", "/v1/sandbox", "/mcp", "/health/ready")


class Listeners:
    """A house, and the URLs of its listeners."""

    def __init__(self, house: House, urls: dict[str, str]) -> None:
        self.house = house
        self.urls = urls

    async def call(self, name: str, method: str, path: str, key: str | None = ALICE, **more: Any) -> Any:
        headers = self.house.headers(key) | more.pop("headers", {})
        return await self.house.http.request(method, self.urls[name] + path, headers=headers, **more)


@asynccontextmanager
async def beside(app: Application) -> AsyncIterator[dict[str, str]]:
    """The URLs of what an application that is running serves at ports of its own."""
    served = [(one.app, listen(one.address.host, one.address.port)) for one in app.beside]
    async with accepting_all(served, app.settings) as urls:
        yield dict(zip((one.name for one in app.beside), urls, strict=True))


@pytest.fixture
async def listeners(open_house: Opener) -> AsyncIterator[Listeners]:
    async with open_house(**EVERYTHING) as house, beside(house.app) as urls:
        yield Listeners(house, urls)


async def test_without_a_setting_there_is_one_port(house: House) -> None:
    assert house.app.beside == []


async def test_each_says_in_its_own_form_that_it_is_well(listeners: Listeners) -> None:
    said = {name: (await listeners.call(name, "GET", "/health", None)).json() for name in NAMES}
    version = said["sandbox"]["version"]
    assert said["sandbox"] == {"status": "healthy", "version": version}
    assert said["agent"] == {"status": "healthy", "service": "agent-workspace-api"}
    assert said["execbox"] == {"status": "ok"}
    services = {"preview": "preview-router", "snapshot": "snapshot-api", "compute": "api", "gateway": "gateway"}
    for name, service in services.items():
        assert said[name] == {"status": "healthy", "service": service}
    testbase = said["testbase"]
    assert set(testbase) == {"status", "project", "timestamp", "uptime", "checks", "metrics", "threadCache"}
    assert {"gcsfuseMount", "openaiApiKey", "memory", "disk"} <= set(testbase["checks"])
    assert set(testbase["metrics"]) == {"activeSessions", "recentErrors", "successRate"}
    assert set(testbase["threadCache"]) == {"size", "maxSize", "ttlHours"}


async def test_the_one_port_says_all_of_it_in_one_object(house: House) -> None:
    merged = (await house.call("GET", "/health", None)).json()
    own = {"status", "version", "service", "project", "timestamp", "uptime", "checks", "metrics", "threadCache"}
    assert set(merged) == own
    assert merged["checks"]["gcsfuseMount"] == {"status": "healthy", "detail": "not used"}


async def test_a_part_that_is_down_is_a_503_everywhere(listeners: Listeners, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down() -> None:
        raise OSError

    monkeypatch.setattr(listeners.house.records, "ping", down)
    for name in NAMES:
        answer = await listeners.call(name, "GET", "/health", None)
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy"), name
    ready = await listeners.call("sandbox", "GET", "/health/ready", None)
    assert (ready.status_code, ready.json()) == (503, {"status": "not_ready", "sandboxes_active": 0})


async def test_readiness_of_the_sandbox_api(listeners: Listeners) -> None:
    await listeners.house.create()
    ready = await listeners.call("sandbox", "GET", "/health/ready", None)
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "sandboxes_active": 1})
    assert (await listeners.call("agent", "GET", "/health/ready", None)).status_code == 404


async def test_metrics_are_prometheuss_but_testbases_are_json(listeners: Listeners) -> None:
    for name in set(NAMES) - {"testbase"}:
        answer = await listeners.call(name, "GET", "/metrics", None)
        assert "# TYPE sandbox_active gauge" in answer.text, name
    testbase = (await listeners.call("testbase", "GET", "/metrics", None)).json()
    assert {"totalTasks", "successRate", "recentErrors", "activeSessions"} <= set(testbase)
    collector = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}
    answer = await listeners.call("testbase", "GET", "/metrics", None, headers=collector)
    assert "# TYPE sandbox_active gauge" in answer.text


async def test_each_documents_what_it_serves_and_nothing_else(listeners: Listeners) -> None:
    whole = (await listeners.house.call("GET", "/openapi.json", None)).json()
    somewhere: set[str] = set()
    for service in SERVICES:
        told = (await listeners.call(service.name, "GET", "/openapi.json", None)).json()
        assert told["info"]["title"] == f"Atoll: {service.title}"
        own = {path for path in told["paths"] if service.serves(path)}
        ops = set(told["paths"]) - own - {"/workspaces", "/workspaces/{ws}"}
        assert ops <= {
            *("/", "/health", "/health/ready", "/metrics", "/docs", "/redoc"),
            *("/openapi.json", "/openapi.yaml", "/docs/assets/{file}"),
        }
        assert own <= set(whole["paths"])
        somewhere |= own | ops
        for page in ("/docs", "/redoc"):
            shown = await listeners.call(service.name, "GET", page, None)
            assert (shown.status_code, "openapi.json" in shown.text) == (200, page == "/redoc")
        assert (await listeners.call(service.name, "GET", "/docs/assets/start.js", None)).status_code == 200
    left = {path for path in set(whole["paths"]) - somewhere if not path.startswith(NOWHERE_ELSE)}
    assert left == set(), "say in surfaces/listeners.py whose these are, or here that they are nobody's"


async def test_the_front_names_the_service(listeners: Listeners) -> None:
    front = (await listeners.call("execbox", "GET", "/", None)).json()
    assert (front["name"], front["docs"]) == ("Atoll: execbox", "/docs")


async def test_documents_and_metrics_can_be_turned_off_here_too(open_house: Opener) -> None:
    closed = {"api": {"docs": False, "metrics": False}} | EVERYTHING
    async with open_house(**closed) as house, beside(house.app) as urls:
        for path in ("/docs", "/redoc", "/openapi.json", "/openapi.yaml", "/docs/assets/start.js", "/metrics"):
            answer = await house.http.get(urls["testbase"] + path)
            assert (answer.status_code, answer.json()) == (404, {"error": "Not Found", "message": "no such route"})


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("sandbox", "/v1/sessions", {"detail": "No such route"}),
        ("testbase", "/v1/sessions", {"error": "Not Found", "message": "no such route"}),
        ("compute", "/execute", {"error": "not_found", "message": "no such route"}),
        ("snapshot", "/workspaces", {"detail": "No such route"}),
    ],
)
async def test_anothers_routes_are_no_routes_in_its_own_words(
    listeners: Listeners, name: str, path: str, body: dict[str, str]
) -> None:
    answer = await listeners.call(name, "GET", path)
    assert (answer.status_code, answer.json()) == (404, body)


async def test_what_is_made_at_one_port_is_there_at_all(listeners: Listeners) -> None:
    made = await listeners.call("agent", "POST", "/workspaces", json={"name": "shared"})
    assert made.status_code == 200, made.text
    (told,) = (await listeners.call("testbase", "GET", "/workspaces")).json()["workspaces"]
    assert told["id"] == "shared"
    (on_the_one,) = (await listeners.house.call("GET", "/workspaces")).json()
    assert on_the_one["workspace_id"] == made.json()["workspace_id"]


async def test_testbases_workspaces_are_an_object_at_its_port_and_the_agents_array_elsewhere(
    listeners: Listeners,
) -> None:
    for name in ("one", "two"):
        await listeners.house.call("POST", "/workspaces", json={"name": name})
    await listeners.house.call("POST", "/workspaces", BOB, json={"name": "bobs"})
    told = (await listeners.call("testbase", "GET", "/workspaces")).json()
    assert (told["count"], {one["id"] for one in told["workspaces"]}) == (2, {"one", "two"})
    assert set(told["workspaces"][0]) == {"id", "created", "modified", "fileCount"}
    assert isinstance((await listeners.call("agent", "GET", "/workspaces")).json(), list)
    gone = await listeners.call("testbase", "DELETE", "/workspaces/one")
    assert (gone.status_code, gone.json()) == (200, {"success": True, "workspaceId": "one"})
    again = await listeners.call("testbase", "DELETE", "/workspaces/one")
    assert (again.status_code, again.json()["error"]) == (404, "Not Found")
    assert (await listeners.call("testbase", "DELETE", "/workspaces/bobs")).status_code == 404
    assert len((await listeners.call("agent", "GET", "/workspaces")).json()) == 1
    assert len((await listeners.call("agent", "GET", "/workspaces", BOB)).json()) == 1


async def test_a_stream_opens_at_the_services_port(listeners: Listeners) -> None:
    session = (await listeners.house.create())["id"]
    there = House(
        listeners.house.app, listeners.urls["execbox"], listeners.house.records, listeners.house.host,
        listeners.house.keys, listeners.house.http,
    )  # fmt: skip
    async with there.socket(f"/v1/sessions/{session}/exec?cmd=echo&cmd=hi") as socket:
        assert b"hi" in b"".join([part async for part in socket if isinstance(part, bytes)])


async def test_ports_of_sandboxes_are_reached_at_the_routers_and_the_gateways_port_by_path_and_by_host(
    open_house: Opener,
) -> None:
    more = {"previews": {"domain": "preview.test"}}
    async with open_house(**EVERYTHING, more_settings=more) as house, beside(house.app) as urls:
        there = Listeners(house, urls)
        session = (await house.create())["id"]
        body = {"sandbox_id": session, "port": 3000, "backend_url": "http://127.0.0.1:3000"}
        assert (await there.call("preview", "POST", "/preview/register", json=body)).status_code == 200
        by_host = {"host": f"3000-{session.replace('_', '-')}.preview.test"}
        for name in ("preview", "gateway"):
            for path, headers in ((f"/preview/{session}/3000/", {}), ("/health", by_host)):
                answer = await there.call(name, "GET", path, headers=headers)
                assert answer.status_code == 502, (name, path, answer.text)
                stranger = await there.call(name, "GET", path, BOB, headers=headers)
                assert stranger.status_code == 404, (name, path)
        assert (await there.call("sandbox", "GET", f"/preview/{session}/3000/")).json() == {"detail": "No such route"}


def test_every_service_has_a_setting() -> None:
    from atoll.settings.listen import ListenSettings

    assert set(NAMES) == set(ListenSettings.model_fields)
    assert TESTBASE in SERVICES
