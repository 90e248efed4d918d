"""Servers: what is wanted runs, in order, again when it ends, and after another life of Atoll; what is not does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, QuotaExceeded, Unavailable
from atoll.services.daemon import servers, supervising
from atoll.services.daemon.overlays import OverlaySpec
from atoll.services.daemon.port_urls import NOTICED, PortUrls
from atoll.services.daemon.server_spec import (
    HealthCheck,
    RestartPolicy,
    ServerSpec,
    check_server,
    in_order,
    spec_of,
)
from atoll.testing.fake_programs import PROGRAMS, Context
from tests.services.conftest import ALICE, BOB, READER, until
from tests.services.daemon.conftest import Kept

LISTENS = ServerSpec("web", "serve", port=3000)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "DELAY_MIN_S", 0.01)
    monkeypatch.setattr(supervising, "WAIT_S", 0.01)
    monkeypatch.setattr(supervising, "LOOK_S", 0.01)

    async def serve(context: Context, _args: list[str]) -> int:
        """Listens at PORT, and says so."""
        port = int(context.process.env["PORT"])
        context.listening.add(port)
        await context.out(f"listens {port}\n".encode())
        try:
            await asyncio.sleep(3600)
        finally:
            context.listening.discard(port)
        return 0

    monkeypatch.setitem(PROGRAMS, "serve", serve)


async def test_a_server_is_ready_once_it_listens_at_its_port(kept: Kept) -> None:
    made = await kept.tools.servers.start(ALICE, kept.id, LISTENS)
    assert made.status == "starting"
    await until(lambda: _is(kept, "web", "ready"))
    assert await kept.running("server:web")
    assert await kept.tools.servers.logs(ALICE, kept.id, "web") == "listens 3000\n"
    assert await kept.tools.servers.logs(ALICE, kept.id, "web", "stderr") == ""


async def test_a_look_that_was_refused_is_not_the_last(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    ports, real, refusals = kept.house.sandboxes.open_ports, kept.house.sandboxes.open_ports.now, 2

    async def crowded(*asked: Any) -> list[int]:
        nonlocal refusals
        if await kept.running("server:web") and refusals:
            refusals -= 1
            raise Unavailable("at most so many connections follow the ports of one sandbox")
        return await real(*asked)

    monkeypatch.setattr(supervising, "FAULT_S", 0.01)
    monkeypatch.setattr(ports, "now", crowded)
    await kept.tools.servers.start(ALICE, kept.id, LISTENS)
    await until(lambda: _is(kept, "web", "ready"))
    assert refusals == 0


async def test_a_taken_port_gives_way_to_the_next_unless_it_is_strict(kept: Kept) -> None:
    for slug in ("a", "b"):
        await kept.tools.servers.start(ALICE, kept.id, replace(LISTENS, slug=slug))
        await until(lambda slug=slug: _is(kept, slug, "ready"))
    assert (await kept.state("b"))["port"] == 3001
    await kept.tools.servers.start(ALICE, kept.id, replace(LISTENS, slug="c", strict_port=True))
    await until(lambda: _is(kept, "c", "failed"))
    assert (await kept.state("c"))["error"] == "port 3000 is taken"


async def test_what_was_registered_for_a_server_goes_when_it_listens_elsewhere_and_when_it_stops(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports, end, registered = iter(range(5000, 5010)), asyncio.Event(), kept.previews.registered

    async def wander(context: Context, _args: list[str]) -> int:
        port = next(ports)
        context.listening.add(port)
        try:
            await end.wait()
        finally:
            context.listening.discard(port)
            end.clear()
        return 1

    monkeypatch.setitem(PROGRAMS, "wander", wander)
    spec = ServerSpec("web", "wander", restart_policy=RestartPolicy.ALWAYS, restart_delay_ms=10)
    await kept.tools.servers.start(ALICE, kept.id, spec)
    await until(lambda: _shows(kept, 5000))
    end.set()
    await until(lambda: _shows(kept, 5001))
    await kept.restart()
    await kept.tools.servers.restart(ALICE, kept.id, "web")
    assert set(registered) <= {5001, 5002}, "what listens again keeps its address"
    await until(lambda: _shows(kept, 5002))
    await kept.tools.servers.stop(ALICE, kept.id, "web")
    assert not registered
    await kept.tools.servers.start(ALICE, kept.id, replace(spec, restart_policy=RestartPolicy.NEVER))
    await until(lambda: _shows(kept, 5003))
    end.set()
    await until(lambda: _is(kept, "web", "failed"))
    assert not registered


async def test_a_preview_that_somebody_asked_for_is_no_servers_to_take_away(kept: Kept) -> None:
    registered, server = kept.previews.registered, kept.tools.servers
    await kept.previews.register(ALICE, kept.id, 3000, metadata={"mine": "yes"})
    await kept.previews.register(ALICE, kept.id, 3001, metadata=NOTICED)
    for slug in ("a", "b"):
        await server.start(ALICE, kept.id, replace(LISTENS, slug=slug))
        await until(lambda slug=slug: _is(kept, slug, "ready"))
    assert registered[3001].metadata == {"registered_by": "server b"}
    await kept.previews.register(
        ALICE, kept.id, 3001, metadata={"registered_by": "server c"}
    )  # as if it were there now
    await server.stop(ALICE, kept.id, "b")
    await server.remove(ALICE, kept.id, "a")
    assert sorted(registered) == [3000, 3001]


async def test_the_overlays_of_a_server_that_cannot_be_are_taken_away(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, none = OverlaySpec("/etc", "/tmp/copy"), OverlaySpec("/none", "/tmp/other")
    with pytest.raises(NotFound):
        await kept.tools.servers.start(ALICE, kept.id, LISTENS, [one, none])
    monkeypatch.setattr(servers, "PER_SANDBOX", 0)
    with pytest.raises(QuotaExceeded):
        await kept.tools.servers.start(ALICE, kept.id, LISTENS, [one])
    assert await kept.tools.overlays.list(ALICE, kept.id) == []


async def test_servers_that_begin_together_do_not_choose_the_same_port(kept: Kept) -> None:
    wanted = [(replace(LISTENS, slug=slug), ()) for slug in ("a", "b", "c")]
    await kept.tools.servers.add(ALICE, kept.id, wanted)
    for slug in ("a", "b", "c"):
        await until(lambda slug=slug: _is(kept, slug, "ready"))
    assert {(await kept.state(slug))["port"] for slug in ("a", "b", "c")} == {3000, 3001, 3002}


@pytest.mark.parametrize(
    ("policy", "line", "starts", "status"),
    [
        (RestartPolicy.NEVER, "exit 1", 1, "failed"),
        (RestartPolicy.NEVER, "exit 0", 1, "stopped"),
        (RestartPolicy.ON_FAILURE, "exit 0", 1, "stopped"),
        (RestartPolicy.ON_FAILURE, "exit 1", 3, "failed"),
        (RestartPolicy.ALWAYS, "exit 0", 3, "failed"),
    ],
)
async def test_it_starts_again_as_its_policy_says(
    kept: Kept, policy: RestartPolicy, line: str, starts: int, status: str
) -> None:
    spec = ServerSpec("job", line, restart_policy=policy, max_restarts=2, restart_delay_ms=10)
    await kept.tools.servers.start(ALICE, kept.id, spec)
    await until(lambda: _is(kept, "job", status))
    state = await kept.state("job")
    listed = await kept.house.sandboxes.processes.list(ALICE, kept.id)
    assert len([one for one in listed if one.label == "server:job"]) == starts == state["restarts"] + 1
    assert state["exit_code"] == int(line[-1]) and not state["wanted"]


async def test_what_it_depends_on_comes_first_and_a_failure_of_that_is_its_own(kept: Kept) -> None:
    db = replace(LISTENS, slug="db", start="sleep 0.2; serve", port=5432)
    await kept.tools.servers.start(ALICE, kept.id, db)
    await kept.tools.servers.start(ALICE, kept.id, replace(LISTENS, depends_on=("db",)))
    await until(lambda: _is(kept, "web", "ready"))
    assert await kept.status("db") == "ready"
    await kept.tools.servers.start(ALICE, kept.id, ServerSpec("broken", "exit 1"))
    await kept.tools.servers.start(ALICE, kept.id, ServerSpec("last", "sleep 60", depends_on=("broken",)))
    await until(lambda: _is(kept, "last", "failed"))
    assert "broken" in (await kept.state("last"))["error"] and not await kept.running("server:last")


async def test_the_install_command_comes_once_and_first_and_its_failure_is_told(kept: Kept) -> None:
    spec = replace(LISTENS, install="echo installed", restart_policy=RestartPolicy.ALWAYS, restart_delay_ms=10)
    made = await kept.tools.servers.start(ALICE, kept.id, spec)
    assert made.status == "installing"
    await until(lambda: _is(kept, "web", "ready"))
    (process,) = await kept.running("server:web")
    await kept.house.sandboxes.processes.signal(ALICE, kept.id, process, 9)
    await until(lambda: _count(kept, "server:web", 2))
    assert await _count(kept, "install:web", 1)
    await kept.tools.servers.start(ALICE, kept.id, ServerSpec("bad", "sleep 60", install="exit 7"))
    await until(lambda: _is(kept, "bad", "failed"))
    assert (await kept.state("bad"))["exit_code"] == 7 and not await kept.running("server:bad")


async def test_variables_come_from_its_file_then_from_what_was_said_then_from_its_port(kept: Kept) -> None:
    await kept.tools.env_files.set(ALICE, kept.id, {"A": "file", "B": "file", "PORT": "1"}, "/tmp/.env")
    spec = ServerSpec("e", "env; sleep 60", path="/tmp", env_file=".env", environment={"B": "said"}, port=3000)
    await kept.tools.servers.start(ALICE, kept.id, spec)
    await until(lambda: _logged(kept, "e", "PORT"))
    log = (await kept.tools.servers.logs(ALICE, kept.id, "e")).splitlines()
    assert {"A=file", "B=said", "PORT=3000"} <= set(log)


async def test_health_is_looked_at_and_told(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int | None] = [None, 503, 204]

    async def looked(*_: Any) -> int | None:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(supervising, "status_of", looked)
    check = HealthCheck(interval_ms=100, timeout_ms=20, delay_ms=0)
    await kept.tools.servers.start(ALICE, kept.id, replace(LISTENS, health_check=check))
    await until(lambda: _is(kept, "web", "ready"))
    found = await kept.tools.servers.get(ALICE, kept.id, "web")
    assert found.fixture.state["healthy"] is True and found.health is not None and found.health.last_status == 204
    answers[:] = [500]
    await until(lambda: _is(kept, "web", "running"))
    found = await kept.tools.servers.get(ALICE, kept.id, "web")
    assert found.fixture.state["healthy"] is False and found.health is not None
    assert found.health.consecutive_failures > 0


@pytest.mark.parametrize(("long_s", "short_lives"), [(60.0, [1, 2, 3]), (0.0, [0, 0, 0])])
async def test_what_never_lasts_is_started_again_after_longer_and_longer(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, long_s: float, short_lives: list[int]
) -> None:
    counted: list[int] = []

    def delay_s(_: float, lives: int) -> float:
        counted.append(lives)
        return 0.0

    monkeypatch.setattr(supervising, "delay_s", delay_s)
    monkeypatch.setattr(supervising, "SHORT_LIFE_S", long_s)
    spec = ServerSpec("job", "exit 1", restart_policy=RestartPolicy.ALWAYS, max_restarts=3)
    await kept.tools.servers.start(ALICE, kept.id, spec)
    await until(lambda: _is(kept, "job", "failed"))
    assert counted == short_lives


def test_the_delay_of_a_restart_doubles_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "DELAY_MIN_S", 0.1)
    assert [supervising.delay_s(0, lives) for lives in (0, 1, 2, 3)] == [0.1, 0.1, 0.2, 0.4]
    assert supervising.delay_s(0, 6) >= 1
    assert supervising.delay_s(1, 100) == supervising.delay_s(0, 10**9) == 60
    assert supervising.delay_s(300, 5) == 300


async def test_a_stopped_server_stays_so_and_a_restarted_one_runs(kept: Kept) -> None:
    spec = replace(LISTENS, restart_policy=RestartPolicy.ALWAYS, restart_delay_ms=10, stop_timeout_ms=100)
    await kept.tools.servers.start(ALICE, kept.id, spec)
    await until(lambda: _is(kept, "web", "ready"))
    assert (await kept.tools.servers.stop(ALICE, kept.id, "web")).status == "stopped"
    await asyncio.sleep(0.05)
    assert not await kept.running("server:web") and await kept.status("web") == "stopped"
    await kept.tools.servers.restart(ALICE, kept.id, "web")
    await until(lambda: _is(kept, "web", "ready"))
    assert len(await kept.running("server:web")) == 1
    await kept.tools.servers.remove(ALICE, kept.id, "web")
    assert not await kept.running("server:web")
    with pytest.raises(NotFound):
        await kept.tools.servers.get(ALICE, kept.id, "web")


async def test_one_of_the_same_slug_gives_way(kept: Kept) -> None:
    await kept.tools.servers.start(ALICE, kept.id, LISTENS)
    await until(lambda: _is(kept, "web", "ready"))
    (before,) = await kept.running("server:web")
    await kept.tools.servers.start(ALICE, kept.id, replace(LISTENS, port=4000))
    await until(lambda: _is(kept, "web", "ready"))
    (after,) = await kept.running("server:web")
    assert after != before and (await kept.state("web"))["port"] == 4000


async def test_c01_another_life_of_atoll_finds_what_runs_and_starts_what_ended_meanwhile(kept: Kept) -> None:
    again = {"restart_policy": RestartPolicy.ALWAYS, "restart_delay_ms": 10}
    for slug, port in (("stays", 3000), ("dies", 3001)):
        await kept.tools.servers.start(ALICE, kept.id, replace(LISTENS, slug=slug, port=port, **again))
        await until(lambda slug=slug: _is(kept, slug, "ready"))
    await kept.tools.servers.start(ALICE, kept.id, ServerSpec("over", "exit 1"))
    await until(lambda: _is(kept, "over", "failed"))
    before, (dies,) = await kept.running("server:stays"), await kept.running("server:dies")
    await kept.tools.close()
    await kept.house.sandboxes.processes.signal(ALICE, kept.id, dies, 9)
    await kept.restart()
    await until(lambda: _count(kept, "server:dies", 2))
    await until(lambda: _is(kept, "dies", "ready"))
    assert await kept.running("server:stays") == before and await kept.status("stays") == "ready"
    assert (await kept.state("dies"))["restarts"] == 1
    assert await _count(kept, "server:over", 1) and await kept.status("over") == "failed"


async def test_nothing_is_kept_of_a_sandbox_that_has_ended(kept: Kept) -> None:
    await kept.tools.servers.start(ALICE, kept.id, LISTENS)
    await until(lambda: _is(kept, "web", "ready"))
    await kept.house.sandboxes.kill(ALICE, kept.id)
    await until(lambda: _none_left(kept))


async def test_a_server_waits_for_its_overlay(kept: Kept) -> None:
    await kept.tools.servers.start(ALICE, kept.id, LISTENS, [OverlaySpec("/etc", "/tmp/etc")])
    await until(lambda: _is(kept, "web", "ready"))
    (overlay,) = await kept.tools.overlays.list(ALICE, kept.id)
    assert overlay.state["copy_status"] == "complete"
    bad = replace(LISTENS, slug="bad", depends_on=("nothing",))
    with pytest.raises(InvalidInput, match="depends_on"):
        await kept.tools.servers.start(ALICE, kept.id, bad)


async def test_bounds_and_tenancy(kept: Kept) -> None:
    with pytest.raises(NotFound):
        await kept.tools.servers.start(BOB, kept.id, LISTENS)
    with pytest.raises(Forbidden):
        await kept.tools.servers.start(READER, kept.id, LISTENS)
    for number in range(servers.PER_SANDBOX):
        await kept.tools.servers.add(
            ALICE, kept.id, [(ServerSpec(f"s{number}", "true", autostart=False), ())], all_start=False
        )
    with pytest.raises(QuotaExceeded):
        await kept.tools.servers.start(ALICE, kept.id, LISTENS)
    assert {one.status for one in await kept.tools.servers.list(READER, kept.id)} == {"stopped"}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"slug": "../x"}, "slug"),
        ({"slug": ""}, "slug"),
        ({"start": ""}, "start"),
        ({"start": "a\0b"}, "start"),
        ({"port": 0}, "port"),
        ({"port": None, "strict_port": True}, "strict_port"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"stop_timeout_ms": 10**9}, "stop_timeout_ms"),
        ({"environment": {"A": "x" * 70_000}}, "environment"),
        ({"health_check": HealthCheck(path="no")}, "health_check.path"),
        ({"health_check": HealthCheck(path="/a b\r\n")}, "health_check.path"),
        ({"health_check": HealthCheck(interval_ms=1)}, "health_check.interval_ms"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)
def test_what_no_server_can_be_is_refused(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_server(replace(LISTENS, **changed))
    assert caught.value.field == field


def test_a_spec_is_read_again_as_it_was_written() -> None:
    spec = replace(
        LISTENS, depends_on=("a",), overlays=("ovl_1",), environment={"A": "b"}, health_check=HealthCheck("/x")
    )
    assert spec_of(spec.as_json()) == spec


def test_cycles_are_refused_however_long() -> None:
    specs = [ServerSpec(f"s{n}", "true", depends_on=(f"s{(n + 1) % 5}",)) for n in range(5)]
    with pytest.raises(InvalidInput, match="s0 -> s1 -> s2 -> s3 -> s4 -> s0"):
        in_order(specs, {}, ())
    assert in_order(specs[:2], {"s2": ()}, ()) == ["s2", "s1", "s0"]
    with pytest.raises(InvalidInput, match="x -> x"):
        in_order([ServerSpec("x", "true", depends_on=("x",))], {}, ())


async def test_a_port_is_not_registered_anew_while_nobody_can_say_whether_it_is(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise Unavailable("the records do not answer")

    monkeypatch.setattr(kept.previews, "get", away)
    assert await PortUrls(kept.previews, "http://atoll").open(ALICE, kept.id, 3000) == ""
    assert kept.previews.registered == {}


async def _shows(kept: Kept, port: int) -> bool:
    return set(kept.previews.registered) == {port} and await _is(kept, "web", "ready")


async def _is(kept: Kept, slug: str, status: str) -> bool:
    return await kept.status(slug) == status


async def _count(kept: Kept, label: str, number: int) -> bool:
    listed = await kept.house.sandboxes.processes.list(ALICE, kept.id)
    return len([one for one in listed if one.label == label]) == number


async def _logged(kept: Kept, slug: str, text: str) -> bool:
    return text in await kept.tools.servers.logs(ALICE, kept.id, slug)


async def _none_left(kept: Kept) -> bool:
    return not await kept.house.records.list_fixtures(sandbox=kept.id)
