"""Where compute or storage has a price, a spent balance refuses sandboxes and files with 402 on every surface."""

from __future__ import annotations

from typing import Any

from tests.surfaces.testbase.conftest import Office, OpenOffice

SESSION = {"image": "host", "network": "none"}


async def test_a_spent_balance_refuses_a_sandbox_and_credits_open_it_again(open_office: OpenOffice) -> None:
    async with open_office(prices={"compute_usd_per_s": "0.0001"}) as office:
        made = await office.make()
        refused = await office.call("POST", "/v1/sessions", made["key"], json=SESSION)
        assert (refused.status_code, refused.json()["code"]) == (402, "INSUFFICIENT_CREDIT")
        assert (await office.call("POST", "/v1/workspaces", made["key"], json={"name": "free"})).status_code == 201
        await office.call("POST", f"/billing/admin/{made['id']}/credits", json={"amount": 1})
        assert (await office.call("POST", "/v1/sessions", made["key"], json=SESSION)).status_code == 201


async def test_a_spent_balance_refuses_files_where_storage_has_a_price(open_office: OpenOffice) -> None:
    async with open_office(prices={"storage_usd_per_gib_h": "0.001"}) as office:
        made = await office.make()
        refused = await office.call("POST", "/v1/workspaces", made["key"], json={"name": "dear"})
        assert (refused.status_code, refused.json()["code"]) == (402, "INSUFFICIENT_CREDIT")
        assert (await office.call("POST", "/v1/sessions", made["key"], json=SESSION)).status_code == 201


async def test_without_prices_nothing_but_tasks_is_refused_for_money(office: Office) -> None:
    made = await office.make()
    for path, body in (("/v1/sessions", SESSION), ("/v1/workspaces", {"name": "any"})):
        answer = await office.call("POST", path, made["key"], json=body)
        assert answer.status_code == 201, answer.text


async def test_a_sandbox_that_nobody_pays_for_ends_and_says_why(open_office: OpenOffice, monkeypatch: Any) -> None:
    async with open_office(prices={"compute_usd_per_s": "0.01"}) as office:
        made = await office.make()
        await office.call("POST", f"/billing/admin/{made['id']}/credits", json={"amount": 1.5})
        session = (await office.call("POST", "/v1/sessions", made["key"], json=SESSION)).json()["id"]
        running = office.house.app.sandboxes.running
        measured, ages = running.measured, [60.0, 200.0, 300.0]

        async def later() -> Any:
            return [(sandbox, ages.pop(0)) for sandbox, _ in await measured()]

        monkeypatch.setattr(running, "measured", later)
        while ages:
            await office.house.app.charging.run()
        ended = (await office.call("GET", f"/v1/sessions/{session}", made["key"])).json()
        assert (ended["status"], ended["reason"]) == ("killed", "insufficient_credit")
        actions = [one.action for one in await office.house.records.list_events(tenant=made["id"], limit=100)]
        assert "sandbox.credit_spent" in actions and "sandbox.killed" in actions
        account = (await office.call("GET", "/billing/account", made["key"])).json()
        assert (account["creditsBalance"], account["totalSpent"]) == (0, 1.5)
