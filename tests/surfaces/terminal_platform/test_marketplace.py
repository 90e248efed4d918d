"""The marketplace: to the letter of seed 002, and what it has besides: versions, prices, ratings, installs and runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from atoll.domain import errors
from atoll.domain.key import KeyKind, Scope
from atoll.domain.ledger import TransferKind
from atoll.domain.principal import Principal
from atoll.services.marketplace.runs import RunRequest
from tests.surfaces.conftest import ALICE, BOB, EXECUTOR, OWNER, House, Opener, open_house  # noqa: F401

ALICE_ID, BOB_ID = "key_a11ce0000000", "key_b0b000000000"
OPERATOR = Principal("key_000000000000", KeyKind.OWNER, frozenset(Scope), admin=True)
PRICE: dict[str, Any] = {"pricing": {"per_run": 0.25}}
SEEN = {"max_price": 0.25}  # what a caller says who has seen that


@dataclass
class Market:
    house: House

    async def ask(self, method: str, path: str, key: str = BOB, status: int = 200, **more: Any) -> Any:
        answer = await self.house.call(method, "/marketplace" + path, key, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def publish(self, name: str = "summarise", key: str = ALICE, **more: Any) -> Any:
        body = {"name": name, "description": "Sums a text up", "command": ["echo", "hi"]} | more
        return await self.ask("POST", "/publish", key, json=body)

    async def give(self, account: str, dollars: float) -> None:
        await self.house.app.ledger.credit(OPERATOR, account, round(dollars * 1_000_000))

    async def money(self, account: str) -> tuple[int, int, int]:
        """Balance, held and spent."""
        found = await self.house.app.ledger.account(account)
        return found.balance, found.held, found.spent


@pytest.fixture
async def market(open_house: Opener) -> AsyncIterator[Market]:  # noqa: F811
    async with open_house() as house:
        yield Market(house)


async def test_a_worker_is_published_found_and_looked_at_as_the_seed_says(market: Market) -> None:
    body = {"name": "Translate", "description": "Texts", "tags": ["text", "nlp"], "endpoint_url": "https://w.example/"}
    made = await market.ask("POST", "/publish", ALICE, json=body)
    assert (
        made.items()
        >= (
            {k: body[k] for k in body}
            | {"author": ALICE_ID, "version": "1.0.0", "pricing": {}, "rating": 0.0, "installs": 0}
        ).items()
    )
    assert await market.ask("GET", f"/{made['worker_id']}") == made
    for query in ("", "?q=TRANS", "?q=texts", "?tags=nlp", "?tags=none,text", "?q=t&tags=text", f"?author={ALICE_ID}"):
        assert await market.ask("GET", "/search" + query) == {"results": [made]}, query
    for query in ("?q=else", "?tags=tex", "?q=t&tags=none", "?author=nobody", "?offset=1"):
        assert await market.ask("GET", "/search" + query) == {"results": []}, query
    for query in ("limit=0", "price=1"):
        refused = await market.ask("GET", f"/search?{query}", status=422)
        assert refused["detail"][0]["loc"] == ["query", query[:5]]
    unknown = await market.ask("GET", "/wkr_" + "0" * 24, status=404)
    assert unknown == await market.ask("GET", "/nonsense", status=404) == {"detail": "Worker not found"}


async def test_a_search_is_bounded_by_price(market: Market) -> None:
    free, dear = await market.publish("free"), await market.publish("dear", **PRICE)
    for most, found in (("0", [free]), ("0.249999", [free]), ("0.25", [dear, free])):
        assert await market.ask("GET", f"/search?max_price={most}") == {"results": found}, most
    for most in ("-1", "x", "", "NaN", "1e99", "0.0000001"):
        refused = await market.ask("GET", f"/search?max_price={most}", BOB, 422)
        assert refused["detail"][0]["loc"] == ["query", "max_price"], most


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"command": None}, "endpoint_url"),
        ({"name": "a\x07"}, "name"),
        ({"tags": ["a,b"]}, "tags"),
        ({"endpoint_url": "file:///etc/passwd"}, "endpoint_url"),
        ({"endpoint_url": "http://user@host/"}, "endpoint_url"),
        ({"command": "'"}, "command"),
        ({"template": "none such"}, "template"),
        ({"version": "1.0"}, "version"),
        ({"pricing": {"per_run": -1}}, "pricing.per_run"),
        ({"pricing": {"per_run": 0.0000001}}, "pricing.per_run"),
        ({"pricing": {"per_run": "1"}}, "pricing.per_run"),
        ({"pricing": {"currency": "EUR"}}, "pricing.currency"),
        ({"pricing": {"note": "x" * 5000}}, "pricing"),
    ],
)
async def test_what_is_wrong_with_an_offer_is_named(market: Market, wrong: dict[str, Any], field: str) -> None:
    body = {"name": "n", "description": "d", "command": ["true"]} | wrong
    answer = await market.ask("POST", "/publish", ALICE, 422, json=body)
    assert answer["detail"][0]["loc"] == ["body", field], answer
    assert await market.ask("GET", "/search") == {"results": []}


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"])
async def test_n08_an_endpoint_is_stored_and_told_and_never_called(market: Market, host: str) -> None:
    calls: list[Any] = []
    server = await asyncio.start_server(lambda _, writer: calls.append(writer), "127.0.0.1", 0)
    async with server:
        where = f"http://{host}:{server.sockets[0].getsockname()[1]}/hook"
        made = await market.publish(endpoint_url=where, command=None)
        path = f"/{made['worker_id']}"
        assert (await market.ask("GET", path))["endpoint_url"] == where
        await market.ask("POST", path + "/install")
        refused = await market.ask("POST", path + "/run", status=409)
        assert "endpoint" in refused["detail"]
    assert calls == []


async def test_publishing_again_makes_the_next_version_and_only_its_author_does(market: Market) -> None:
    first = await market.publish(description="old")
    second = await market.publish(description="new", **PRICE)
    assert (second["worker_id"], second["version"]) == (first["worker_id"], "1.0.1")
    other = await market.publish(key=BOB)
    assert other["worker_id"] != first["worker_id"]
    path = f"/{first['worker_id']}"
    assert (await market.ask("GET", path))["description"] == "new"
    assert (await market.ask("GET", path + "?version=1.0.0"))["description"] == "old"
    assert await market.ask("GET", path + "?version=9.0.0", status=404) == {"detail": "Worker not found"}
    assert await market.ask("GET", path + "/versions") == {"versions": [second, first]}
    body = {"name": "summarise", "description": "", "command": "true", "version": "1.0.1"}
    assert "1.0.1" in (await market.ask("POST", "/publish", ALICE, 409, json=body))["detail"]


async def test_installs_count_principals_and_ratings_those_who_had_it(market: Market) -> None:
    path = "/" + (await market.publish())["worker_id"]
    assert (await market.ask("POST", path + "/rate", BOB, 409, json={"rating": 5}))["detail"].startswith("Only who has")
    assert (await market.ask("POST", path + "/install", ALICE))["installs"] == 0  # her own
    assert [(await market.ask("POST", path + "/install"))["installs"] for _ in range(3)] == [1, 1, 1]
    assert (await market.ask("POST", path + "/install", OWNER))["installs"] == 2
    assert (await market.ask("POST", path + "/rate", json={"rating": 2}))["rating"] == 2.0
    assert (await market.ask("POST", path + "/rate", json={"rating": 4}))["rating"] == 4.0
    rated = await market.ask("POST", path + "/rate", OWNER, json={"rating": 5})
    assert (rated["rating"], rated["ratings"]) == (4.5, 2)
    await market.ask("POST", path + "/rate", ALICE, 409, json={"rating": 5})
    for rating in (0, 6, 1.5, "5"):
        await market.ask("POST", path + "/rate", BOB, 422, json={"rating": rating})


async def test_a_private_worker_is_unknown_to_others_and_another_s_is_not_taken_back(market: Market) -> None:
    private = (await market.publish(visibility="private"))["worker_id"]
    public = (await market.publish("public"))["worker_id"]
    nobodys = {"detail": "Worker not found"}
    for method, path in (("GET", ""), ("GET", "/versions"), ("POST", "/install"), ("POST", "/run"), ("DELETE", "")):
        assert await market.ask(method, f"/{private}{path}", BOB, 404) == nobodys
    assert await market.ask("DELETE", f"/{public}", BOB, 404) == nobodys
    assert [one["worker_id"] for one in (await market.ask("GET", "/search"))["results"]] == [public]
    assert len((await market.ask("GET", "/search", ALICE))["results"]) == 2
    assert await market.ask("DELETE", f"/{public}", ALICE) == {"deleted": True}
    assert await market.ask("GET", f"/{public}", BOB, 404) == nobodys


# runs


async def test_another_tenant_runs_it_in_a_sandbox_of_its_own(market: Market) -> None:
    worker = await market.publish(command="cat")
    body = {"input": "a text", "env": {"MODE": "x"}, "timeout": 5}
    ran = await market.ask("POST", f"/{worker['worker_id']}/run", json=body)
    assert ran.items() >= {"status": "completed", "exit_code": 0, "version": "1.0.0", "charged": 0}.items()
    [sandbox] = await market.house.records.list_sandboxes(owner=BOB_ID, removed=None)
    assert sandbox.id == ran["sandbox_id"] and sandbox.ended
    assert (sandbox.spec.image, sandbox.spec.network, sandbox.spec.env) == ("host", "none", {})
    assert await market.house.records.list_sandboxes(owner=ALICE_ID, removed=None) == []
    await market.ask("POST", f"/{worker['worker_id']}/rate", json={"rating": 3})  # who ran it may


async def test_the_price_goes_to_the_author_once_and_both_sides_see_it(market: Market) -> None:
    worker = await market.publish(**PRICE)
    await market.give(BOB_ID, 1)
    ran = await market.ask("POST", f"/{worker['worker_id']}/run", json=SEEN)
    assert ran["charged"] == 0.25
    assert await market.money(BOB_ID) == (750_000, 0, 250_000)
    assert await market.money(ALICE_ID) == (250_000, 0, 0)
    [spent, _] = (await market.house.call("GET", "/billing/transactions", BOB)).json()["transactions"]
    [earned] = (await market.house.call("GET", "/billing/transactions?type=worker_earning", ALICE)).json()[
        "transactions"
    ]
    assert (spent["type"], spent["amount"], spent["balanceAfter"]) == ("usage_deduction", -0.25, 0.75)
    assert (earned["type"], earned["amount"], earned["balanceAfter"]) == ("worker_earning", 0.25, 0.25)
    assert spent["description"] == earned["description"] == "A run of summarise 1.0.0"
    assert earned["metadata"] == {"worker": worker["worker_id"], "version": "1.0.0", "run": ran["run_id"]}
    assert spent["metadata"].items() >= (earned["metadata"] | {"payee": ALICE_ID, "earned": 0.25}).items()


async def test_whoever_cannot_pay_gets_402_and_no_sandbox(market: Market) -> None:
    worker = await market.publish(**PRICE)
    await market.give(BOB_ID, 0.24)
    refused = await market.ask("POST", f"/{worker['worker_id']}/run", BOB, 402, json=SEEN)
    assert "credit" in refused["detail"]
    assert await market.money(BOB_ID) == (240_000, 0, 0)
    assert await market.house.records.list_sandboxes(owner=BOB_ID, removed=None) == []


async def test_a_run_that_cannot_start_costs_nothing(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await market.publish(**PRICE)
    await market.give(BOB_ID, 1)

    async def full(*_: Any, **__: Any) -> None:
        raise errors.QuotaExceeded("full")

    monkeypatch.setattr(market.house.app.sandboxes, "create", full)
    await market.ask("POST", f"/{worker['worker_id']}/run", BOB, 429, json=SEEN)
    assert await market.money(BOB_ID) == (1_000_000, 0, 0)
    assert await market.money(ALICE_ID) == (0, 0, 0)


async def test_a_worker_whose_program_is_missing_costs_nothing(market: Market) -> None:
    worker = await market.publish(command=["no-such-program"], **PRICE)
    await market.give(BOB_ID, 1)
    ran = await market.ask("POST", f"/{worker['worker_id']}/run", json=SEEN)
    assert (ran["status"], ran["exit_code"], ran["charged"]) == ("failed", 127, 0)
    assert await market.money(BOB_ID) == (1_000_000, 0, 0)
    assert await market.money(ALICE_ID) == (0, 0, 0)


async def test_a_run_that_fails_or_times_out_is_paid_since_its_author_did_what_there_was_to_do(market: Market) -> None:
    await market.give(BOB_ID, 1)
    for name, command, status in (("fails", ["false"], "failed"), ("lasts", ["sleep", "60"], "timed_out")):
        worker = await market.publish(name, command=command, **PRICE)
        ran = await market.ask("POST", f"/{worker['worker_id']}/run", json=SEEN | {"timeout": 0.2})
        assert (ran["status"], ran["charged"]) == (status, 0.25)
    assert await market.money(BOB_ID) == (500_000, 0, 500_000)
    assert await market.money(ALICE_ID) == (500_000, 0, 0)


@pytest.mark.parametrize("how", ["leaves", "kills its sandbox", "its sandbox is lost", "the server ends"])
async def test_whoever_cuts_a_run_short_pays_it_but_for_what_the_end_of_the_server_cut(
    market: Market, how: str
) -> None:
    app, records = market.house.app, market.house.records
    await market.give(BOB_ID, 1)
    worker = await market.publish(command=["sleep", "60"], **PRICE)
    bob = await app.identity.authenticate(BOB)
    found = await app.marketplace.get(bob, worker["worker_id"])
    resources = app.settings.limits.defaults.resources()
    run = asyncio.create_task(app.marketplace.runs.run(bob, found, RunRequest(version="1.0.0"), resources))
    async with asyncio.timeout(5):
        while True:
            await asyncio.sleep(0.01)
            sandboxes = await records.list_sandboxes(owner=BOB_ID)
            if sandboxes and sandboxes[0].live and len(await _processes(app, bob, sandboxes[0].id)) > 0:
                break
        if how in ("leaves", "the server ends"):
            if how == "the server ends":
                app.drain()
            run.cancel()
        elif how == "kills its sandbox":
            await app.sandboxes.kill(bob, sandboxes[0].id)
        else:
            market.house.host.end(market.house.host.sandboxes[sandboxes[0].id], "lost")
        await asyncio.wait([run])
    assert run.cancelled() or run.exception() is not None
    charged = 0 if how == "the server ends" else 250_000
    assert await market.money(BOB_ID) == (1_000_000 - charged, 0, charged)
    assert await market.money(ALICE_ID) == (charged, 0, 0)


@pytest.mark.parametrize(("where", "charged"), [("Processes._start", 0), ("_collected", 250_000)])
async def test_a_sandbox_that_stops_answering_is_its_caller_s_risk_once_the_command_has_begun(
    market: Market, monkeypatch: pytest.MonkeyPatch, where: str, charged: int
) -> None:
    async def silent(*_: Any, **__: Any) -> None:
        raise errors.DeadlineExceeded

    await market.give(BOB_ID, 1)
    worker = await market.publish(**PRICE)
    monkeypatch.setattr(f"atoll.services.processes.{where}", silent)
    await market.ask("POST", f"/{worker['worker_id']}/run", BOB, 504, json=SEEN)
    assert await market.money(BOB_ID) == (1_000_000 - charged, 0, charged)
    assert await market.money(ALICE_ID) == (charged, 0, 0)


async def _processes(app: Any, principal: Principal, sandbox_id: str) -> list[Any]:
    try:
        return await app.sandboxes.processes.list(principal, sandbox_id)
    except errors.Conflict:  # it is being made
        return []


async def test_who_goes_away_while_the_price_is_posted_pays_it(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    app = market.house.app
    await market.give(BOB_ID, 1)
    worker = await market.publish(**PRICE)
    settling, go_on, settled, voided = asyncio.Event(), asyncio.Event(), asyncio.Event(), list[object]()
    settle = app.ledger.settle

    async def slow(*args: Any, **named: Any) -> Any:
        settling.set()
        return await asyncio.shield(asyncio.ensure_future(later(*args, **named)))

    async def later(*args: Any, **named: Any) -> Any:
        await go_on.wait()
        try:
            return await settle(*args, **named)
        finally:
            settled.set()

    async def void(hold: object) -> None:
        voided.append(hold)

    monkeypatch.setattr(app.ledger, "settle", slow)
    monkeypatch.setattr(app.ledger, "void", void)
    bob = await app.identity.authenticate(BOB)
    found = await app.marketplace.get(bob, worker["worker_id"])
    resources = market.house.app.settings.limits.defaults.resources()
    run = asyncio.create_task(app.marketplace.runs.run(bob, found, RunRequest(price_max_micro_usd=250_000), resources))
    await settling.wait()
    run.cancel()
    await asyncio.wait([run])
    go_on.set()
    async with asyncio.timeout(3):
        await settled.wait()
    assert (await market.money(BOB_ID))[0] == 750_000
    assert not voided


async def test_its_author_and_who_is_internal_pay_nothing(market: Market) -> None:
    worker = await market.publish(**PRICE)
    for key in (ALICE, OWNER):
        assert (await market.ask("POST", f"/{worker['worker_id']}/run", key))["charged"] == 0
    assert await market.money(ALICE_ID) == (0, 0, 0)


async def test_nobody_pays_more_than_they_said(market: Market) -> None:
    worker = await market.publish(**PRICE)
    await market.give(BOB_ID, 1)
    path = f"/{worker['worker_id']}/run"
    await market.ask("POST", path, BOB, 409, json={"max_price": 0.24})
    assert (await market.ask("POST", path, json={"max_price": 0.25}))["charged"] == 0.25
    await market.ask("POST", path, BOB, 422, json={"max_price": -1})
    await market.ask("POST", path, BOB, 422, json={"timeout": 901})


async def test_whoever_does_not_say_what_it_may_cost_is_told_and_pays_nothing(market: Market) -> None:
    worker = await market.publish(**PRICE)
    await market.give(BOB_ID, 2)
    path = f"/{worker['worker_id']}/run"
    refused = await market.ask("POST", path, BOB, 422)
    assert refused["detail"][0]["loc"] == ["body", "max_price"] and "costs 0.25 dollars" in refused["detail"][0]["msg"]
    await market.publish(pricing={"per_run": 1})  # between a look and the run
    await market.ask("POST", path, BOB, 409, json=SEEN)
    assert (await market.ask("POST", path, json={"version": "1.0.0"}))["charged"] == 0.25
    assert await market.money(BOB_ID) == (1_750_000, 0, 250_000)


async def test_one_idempotency_key_is_one_run_and_one_price(market: Market) -> None:
    worker = await market.publish(**PRICE)
    await market.give(BOB_ID, 1)
    headers = market.house.headers(BOB) | {"idempotency-key": "k"}
    path = f"{market.house.url}/marketplace/{worker['worker_id']}/run"
    first, second = [await market.house.http.post(path, headers=headers, json=SEEN) for _ in range(2)]
    assert first.json() == second.json() and second.headers["idempotent-replayed"] == "true"
    assert await market.money(BOB_ID) == (750_000, 0, 250_000)
    found = await market.house.records.list_transfers(ALICE_ID, kind=TransferKind.EARNING)
    assert len(found) == 1


async def test_a_run_needs_the_scopes(market: Market) -> None:
    worker = await market.publish()
    await market.ask("POST", f"/{worker['worker_id']}/run", EXECUTOR, 403)


async def test_a_user_who_has_published_is_not_deleted_before_it_is_taken_back(market: Market) -> None:
    ring = market.house.keys.principals
    ring[OWNER] = replace(ring[OWNER], admin=True)
    password = {"username": "ann", "password": "correct horse battery staple"}
    made = (await market.house.call("POST", "/api/users", OWNER, json=password)).json()
    login = (await market.house.call("POST", "/auth/login", None, json=password)).json()
    worker = await market.publish(key=login["access_token"])
    refused = await market.house.call("DELETE", f"/api/users/{made['id']}", OWNER)
    assert refused.status_code == 409 and "1 workers" in refused.text
    await market.ask("DELETE", f"/{worker['worker_id']}", login["access_token"])
