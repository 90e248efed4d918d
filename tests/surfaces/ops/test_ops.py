"""Health, readiness and metrics, as machines ask for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import atoll
from atoll.surfaces.ops import health


async def test_health_is_one_object_for_every_monitor(house: Any) -> None:
    answer = await house.call("GET", "/health", None)
    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "healthy")
    assert {"version", "service", "project", "timestamp", "uptime", "checks"} <= set(body)
    assert isinstance(body["uptime"], int)
    asked, told = {"records", "runtime", "blobs", "isolation"}, {"memory", "disk", "openaiApiKey", "gcsfuseMount"}
    assert set(body["checks"]) == asked | told
    assert all(body["checks"][name] == {"status": "healthy"} for name in asked)


async def test_a_monitor_may_ask_without_wanting_the_body(house: Any) -> None:
    answer = await house.call("HEAD", "/health", None)
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await house.call("HEAD", "/v1/sessions", None)).status_code == 401
    assert (await house.call("HEAD", "/v1/sessions")).status_code == 405


async def test_a_part_that_is_down_is_a_503_that_tells_no_secrets(house: Any, monkeypatch: Any) -> None:
    async def broken(_: str) -> None:
        raise OSError("/var/lib/secret")

    monkeypatch.setattr(house.app.runtime, "find", broken)
    for path, word in (("/health", "unhealthy"), ("/health/ready", "not_ready")):
        answer = await house.call("GET", path, None)
        assert (answer.status_code, answer.json()["status"]) == (503, word)
        assert answer.json()["checks"]["runtime"] == {"status": "unhealthy", "detail": "OSError"}
        assert answer.json()["checks"]["records"] == {"status": "healthy"}
        assert "secret" not in answer.text


async def test_a_part_that_hangs_is_a_503_in_time(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(house.records, "ping", hang)
    monkeypatch.setattr(health, "PROBE_S", 0.1)
    async with asyncio.timeout(5):
        answer = await house.call("GET", "/health/ready", None)
    assert (answer.status_code, answer.json()["checks"]["records"]["status"]) == (503, "unhealthy")


async def test_readiness_counts_the_live_sandboxes(house: Any) -> None:
    assert (await house.call("GET", "/health/ready", None)).json()["sandboxes_active"] == 0
    session = await house.create()
    ready = await house.call("GET", "/health/ready", None)
    assert (ready.status_code, ready.json()["status"], ready.json()["sandboxes_active"]) == (200, "ready", 1)
    await house.call("DELETE", f"/v1/sessions/{session['id']}")
    assert (await house.call("GET", "/health/ready", None)).json()["sandboxes_active"] == 0


async def test_the_parts_are_asked_once_however_often_health_is(house: Any, monkeypatch: Any) -> None:
    asked = 0
    find = house.app.runtime.find

    async def counted(sandbox_id: str) -> Any:
        nonlocal asked
        asked += 1
        return await find(sandbox_id)

    monkeypatch.setattr(house.app.runtime, "find", counted)
    await asyncio.gather(*(house.call("GET", "/health", None) for _ in range(30)))
    assert asked <= 2


async def scrape(house: Any) -> dict[str, float]:
    answer = await house.call("GET", "/metrics", None)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


async def test_metrics_have_the_promised_names(house: Any) -> None:
    session = await house.create()
    await house.exec(session["id"], ["/bin/true"])
    await house.call("GET", f"/v1/sessions/{session['id']}/files?path=/none")
    await house.call("GET", "/no/such/path")
    found = await scrape(house)
    assert found["sandbox_created_total"] == 1
    assert found["sandbox_active"] == 1
    assert found[f"sandbox_exec_total{{command=true,sandbox_id={session['id']}}}"] == 1
    assert found["sandbox_exec_duration_seconds_count"] == 1
    assert found["http_requests_total{method=POST,path=/v1/sessions,status=201}"] == 1
    assert found["http_requests_total{method=GET,path=/v1/sessions/{id}/files,status=404}"] == 1
    assert found["http_requests_total{method=GET,path=unmatched,status=404}"] == 1
    bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"]
    for bound in bounds:
        assert f"http_request_duration_seconds_bucket{{le={bound},method=POST,path=/v1/sessions}}" in found


async def test_a_main_command_is_counted_as_others_are(house: Any) -> None:
    session = await house.create(command=["sleep", "60"])
    found = await scrape(house)
    assert found[f"sandbox_exec_total{{command=sleep,sandbox_id={session['id']}}}"] == 1


async def test_an_ended_sandbox_is_no_label_any_more(house: Any) -> None:
    session = await house.create()
    await house.exec(session["id"], ["true"])
    await house.call("DELETE", f"/v1/sessions/{session['id']}")
    found = await scrape(house)
    assert not [name for name in found if session["id"] in name]
    assert found["sandbox_exec_total{command=true,sandbox_id=other}"] == 1


async def test_what_clients_type_makes_no_series(house: Any) -> None:
    for number in range(30):
        await house.call("GET", f"/nothing/{number}")
        await house.call(f"X{number}", "/v1/sessions")
    series = [name for name in await scrape(house) if name.startswith("http_requests_total")]
    assert len(series) <= 4


async def test_other_machines_learn_numbers_and_nobodys_sandboxes(open_house: Any) -> None:
    async with open_house(server={"port": 0, "trusted_proxies": ["127.0.0.1"]}) as house:
        session = await house.create()
        for program in ("true", "echo"):
            await house.exec(session["id"], [program])
        here = (await house.call("GET", "/metrics", None)).text
        there = (await house.call("GET", "/metrics", None, headers={"x-forwarded-for": "203.0.113.5"})).text
    assert session["id"] in here and 'command="echo"' in here
    assert session["id"] not in there and "echo" not in there
    assert 'sandbox_exec_total{command="other",sandbox_id="other"} 2.0' in there
    names = [line for line in here.splitlines() if line.startswith("# TYPE")]
    assert names == [line for line in there.splitlines() if line.startswith("# TYPE")]


@pytest.mark.parametrize("header", [{"x-forwarded-for": "127.0.0.1"}, {"forwarded": "for=127.0.0.1"}])
async def test_what_comes_through_a_proxy_that_nobody_trusts_is_no_local_request(
    house: Any, header: dict[str, str]
) -> None:
    session = await house.create()
    await house.exec(session["id"], ["echo"])
    assert session["id"] in (await house.call("GET", "/metrics", None)).text
    through = (await house.call("GET", "/metrics", None, headers=header)).text
    assert session["id"] not in through and 'command="echo"' not in through


async def test_a_server_may_tell_nobody_whose_sandbox_runs_what(open_house: Any) -> None:
    async with open_house(api={"metrics_tenants": False}) as house:
        session = await house.create()
        await house.exec(session["id"], ["echo"])
        told = (await house.call("GET", "/metrics", None)).text
    assert session["id"] not in told
    assert 'sandbox_exec_total{command="other",sandbox_id="other"} 1.0' in told


async def test_a_page_whose_name_leads_to_this_machine_learns_nobodys_sandboxes(house: Any) -> None:
    session = await house.create()
    await house.exec(session["id"], ["echo"])
    for name in ("localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:80", "[::1]:8080"):
        assert session["id"] in (await house.call("GET", "/metrics", None, headers={"host": name})).text, name
    for name in ("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "[", "x@y"):
        told = (await house.call("GET", "/metrics", None, headers={"host": name})).text
        assert session["id"] not in told and 'command="other"' in told, name


async def test_metrics_can_be_closed(open_house: Any) -> None:
    async with open_house(api={"metrics": False}) as house:
        assert (await house.call("GET", "/metrics", None)).status_code == 404


async def test_the_front_says_what_this_is_and_where_it_says_more(open_house: Any) -> None:
    async with open_house() as house:
        answer = await house.call("GET", "/", None)
        told = answer.json()
        assert (answer.status_code, told["name"], told["version"]) == (200, "Atoll", atoll.__version__)
        for name in ("docs", "openapi", "health"):
            assert (await house.call("GET", told[name], None)).status_code == 200
    async with open_house(api={"docs": False}) as house:
        assert set((await house.call("GET", "/", None)).json()) == {"name", "version", "health"}


async def test_health_tells_of_the_machine_and_of_everybodys_tasks_in_numbers(house: Any, keys: Any) -> None:
    body = {"task": "secret words", "workspaceId": "secret-place", "agent": "command"}
    for command in (["true"], ["sh", "-c", "echo secret output; exit 1"], ["true"], ["true"]):
        await house.call("POST", "/execute", keys.OWNER, json=body | {"command": command})
    answer = await house.call("GET", "/health", None)
    found = answer.json()
    assert found["metrics"] == {"activeSessions": 0, "recentErrors": 1, "successRate": "75%"}
    assert found["threadCache"] == {"size": 0, "maxSize": 0, "ttlHours": 0}
    for check in ("memory", "disk"):
        told = found["checks"][check]
        assert set(told) == {"status", "total", "used", "free", "usagePercent"} and told["total"].endswith(" MB")
    assert found["checks"]["openaiApiKey"] == {"status": "unhealthy", "detail": "not configured"}
    assert (answer.status_code, found["status"]) == (200, "healthy")  # tasks may do without
    shown = await house.call("GET", "/metrics", None, headers={"accept": "application/json"})
    figures = shown.json()
    error = figures["recentErrors"][0]
    assert (figures["totalTasks"], figures["successfulTasks"], figures["failedTasks"]) == (4, 3, 1)
    assert (figures["successRate"], figures["activeSessions"]) == (75, 0) and figures["averageDuration"] > 0
    assert (error["error"], error["workspaceId"]) == ("agent_failed", None)
    assert "secret" not in answer.text + shown.text
    scraped = await house.call("GET", "/metrics", None, headers={"accept": "application/openmetrics-text,*/*;q=0.1"})
    assert scraped.headers["content-type"].startswith("text/plain")


async def test_health_knows_whether_there_is_a_model_and_never_tells_its_key(open_house: Any) -> None:
    at = "http://127.0.0.1:1/v1"
    keyless = {"openai": {"base_url": at}}  # a server that needs no key
    for models in ({"openai": {"api_key": "sk-very-secret"}}, keyless, {"providers": {"own": {"base_url": at}}}):
        async with open_house(models=models) as house:
            answer = await house.call("GET", "/health", None)
        assert answer.json()["checks"]["openaiApiKey"] == {"status": "healthy", "detail": "configured"}
        assert "very-secret" not in answer.text


async def test_a_day_of_tasks_is_ones_own_to_look_back_at(house: Any, keys: Any) -> None:
    body = {"task": "t", "workspaceId": "w", "agent": "command", "command": ["false"]}
    done = (await house.call("POST", "/execute", keys.OWNER, json=body)).json()
    mine = (await house.call("GET", "/metrics/history", keys.OWNER)).json()
    (entry,) = mine["history"]
    assert mine["count"] == 1 and entry["sessionId"] == done["sessionId"] and entry["workspaceId"] == "w"
    assert entry["success"] is False and entry["error"] and entry["duration"] >= 0
    assert (await house.call("GET", "/metrics/history", keys.BOB)).json() == {"count": 0, "history": []}
    assert (await house.call("GET", "/metrics/history", None)).status_code == 401
