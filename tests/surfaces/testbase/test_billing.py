"""`/billing`: what each task, workspace and day cost, in dollars that are exact, of one's own account alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from atoll.domain.event import Event
from atoll.domain.group import Role
from atoll.domain.ids import new_id
from atoll.domain.key import KeyKind
from atoll.domain.ledger import Use, UseKind
from atoll.domain.price import Cost, ModelPrice, TokenUse
from atoll.domain.task import Task, TaskSpec, TaskState, Thread
from atoll.records.base import Records
from atoll.surfaces.testbase import billing_answers as answers
from tests.surfaces.testbase.conftest import Office

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
SEED = TokenUse(6548, 108)  # the documented example: it costs 0.10308


async def exact(office: Office, path: str, key: str | None, **more: Any) -> Any:
    """The JSON with its numbers as they were written."""
    answer = await office.call("GET", path, key, **more)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.content, parse_float=Decimal)


async def ran(
    records: Records, account: str, *, tokens: TokenUse = SEED, state: TaskState = TaskState.SUCCEEDED, **fields: Any
) -> Task:
    """A task of that account which used so much, and ended three seconds after it began."""
    at, internal = fields.pop("at", NOW), fields.pop("internal", False)
    spec = TaskSpec("do it", fields.pop("workspace", "ws_1"), agent=fields.pop("agent", "codex"))
    task = Task(new_id("task"), account, account, spec, new_id("thread"), at, internal=internal)
    thread = Thread(task.thread, account, spec.workspace, spec.agent, at, at)
    await records.add_task(task, thread, Event("task.created", task.id, account, account))
    task = await records.swap_task(task.to(TaskState.RUNNING, started_at=at))
    task = await records.swap_task(task.to(TaskState.ENDING))
    task = await records.swap_task(task.to(state, ended_at=at + timedelta(seconds=3)))
    named: dict[str, Any] = {
        "task": task.id,
        "thread": task.thread,
        "workspace": spec.workspace,
        "credential": account,
        "model": "gpt",
    }
    cost = ModelPrice().cost(tokens)
    used = Use(new_id("use"), account, UseKind.MODEL, at, cost, tokens, internal=internal, **(named | fields))
    await records.add_use(used, at)
    return task


@pytest.fixture
async def payer(office: Office) -> dict[str, Any]:
    """A key with ten dollars."""
    made = await office.make()
    given = await office.call("POST", f"/billing/admin/{made['id']}/credits", json={"amount": 10})
    assert given.status_code == 200, given.text
    return made


async def test_the_documented_account_after_the_documented_task(office: Office, payer: dict[str, Any]) -> None:
    await ran(office.house.records, payer["id"])
    account = await exact(office, "/billing/account", payer["key"])
    assert (account["creditsBalance"], account["totalSpent"]) == (Decimal("9.89692"), Decimal("0.10308"))
    assert (account["id"], account["apiKeyId"]) == (payer["id"], payer["id"])
    assert account["dailyLimit"] is account["monthlyLimit"] is None
    raw = (await office.call("GET", "/billing/account", payer["key"])).text
    assert '"creditsBalance":9.89692,' in raw and '"totalSpent":0.10308,' in raw
    answers.BillingAccountAnswer.model_validate_json(raw)


async def test_an_account_is_there_from_its_first_look_on(office: Office) -> None:
    made = await office.make()
    account = await exact(office, "/billing/account", made["key"])
    assert (account["creditsBalance"], account["totalSpent"]) == (0, 0)


async def test_the_statistics_have_the_protocols_fields(office: Office, payer: dict[str, Any]) -> None:
    records = office.house.records
    for _ in range(9):
        await ran(records, payer["id"])
    await ran(records, payer["id"], state=TaskState.FAILED)
    stats = await exact(office, "/billing/stats", payer["key"])
    assert stats == {
        "totalRequests": 10,
        "totalTokens": 66560,
        "inputTokens": 65480,
        "outputTokens": 1080,
        "totalCost": Decimal("1.0308"),
        "inputCost": Decimal("0.9822"),
        "outputCost": Decimal("0.0486"),
        "successfulRequests": 9,
        "failedRequests": 1,
        "successRate": 90,
    }
    answers.BillingStatsAnswer.model_validate((await office.call("GET", "/billing/stats", payer["key"])).json())


async def test_each_task_is_one_record_of_usage(office: Office, payer: dict[str, Any]) -> None:
    task = await ran(office.house.records, payer["id"])
    failed = await ran(office.house.records, payer["id"], state=TaskState.FAILED, at=NOW + timedelta(minutes=1))
    found = await exact(office, "/billing/usage", payer["key"])
    assert [one["id"] for one in found["records"]] == [failed.id, task.id]
    assert found["count"] == 2
    assert found["records"][1] == {
        "id": task.id,
        "apiKeyId": payer["id"],
        "sessionId": task.thread,
        "workspaceId": "ws_1",
        "timestamp": "2026-03-14T15:09:29Z",
        "inputTokens": 6548,
        "outputTokens": 108,
        "totalTokens": 6656,
        "inputCost": Decimal("0.09822"),
        "outputCost": Decimal("0.00486"),
        "totalCost": Decimal("0.10308"),
        "model": "codex-computer",
        "duration": 3000,
        "status": "success",
        "endpoint": "/execute",
    }
    assert found["records"][0]["status"] == "error"
    answers.UsageAnswer.model_validate((await office.call("GET", "/billing/usage", payer["key"])).json())


async def test_a_workspace_goes_by_the_name_that_its_owner_knows(office: Office, payer: dict[str, Any]) -> None:
    made = await office.call("POST", "/v1/workspaces", payer["key"], json={"name": "my-project"})
    await ran(office.house.records, payer["id"], workspace=made.json()["id"])
    await ran(office.house.records, payer["id"], workspace="ws_deleted", tokens=TokenUse(10, 1))
    found = await exact(office, "/billing/workspaces", payer["key"])
    assert found == {
        "count": 2,
        "workspaces": [
            {
                "workspaceId": "my-project", "totalCost": Decimal("0.10308"), "totalTokens": 6656, "requestCount": 1,
            },
            {
                "workspaceId": "ws_deleted", "totalCost": Decimal("0.000195"), "totalTokens": 11, "requestCount": 1,
            },
        ],
    }  # fmt: skip
    (newest, _) = (await exact(office, "/billing/usage", payer["key"]))["records"]
    assert {newest["workspaceId"]} < {"my-project", "ws_deleted"}


async def test_transactions_are_credits_and_charges_with_the_balance_after_each(
    office: Office, payer: dict[str, Any]
) -> None:
    await ran(office.house.records, payer["id"])
    body = {"amount": -2.5, "description": "taken back"}
    await office.call("POST", f"/billing/admin/{payer['id']}/credits", json=body)
    await office.call("POST", f"/billing/admin/{payer['id']}/refund", json={"amount": 0.1})
    found = await exact(office, "/billing/transactions", payer["key"])
    told = [(one["type"], one["amount"], one["balanceAfter"], one["description"]) for one in found["transactions"]]
    assert told[0] == ("refund", Decimal("0.1"), Decimal("7.49692"), None)
    assert told[1] == ("credit_adjustment", Decimal("-2.5"), Decimal("7.39692"), "taken back")
    assert told[2][:3] == ("usage_deduction", Decimal("-0.10308"), Decimal("9.89692"))
    assert told[3][:3] == ("credit_purchase", 10, 10)
    only = await exact(office, "/billing/transactions?type=refund", payer["key"])
    assert [one["type"] for one in only["transactions"]] == ["refund"]
    answers.TransactionsAnswer.model_validate((await office.call("GET", "/billing/transactions", payer["key"])).json())


async def test_lists_come_in_pages(office: Office, payer: dict[str, Any]) -> None:
    tasks = [await ran(office.house.records, payer["id"], at=NOW + timedelta(minutes=n)) for n in range(3)]
    page = await exact(office, "/billing/usage?limit=1&offset=1", payer["key"])
    assert [one["id"] for one in page["records"]] == [tasks[1].id]
    page = await exact(office, "/billing/transactions?limit=2&offset=3", payer["key"])
    assert [one["type"] for one in page["transactions"]] == ["credit_purchase"]


async def test_a_window_includes_both_ends_and_a_day_is_whole(office: Office, payer: dict[str, Any]) -> None:
    task = await ran(office.house.records, payer["id"])
    assert task.ended_at is not None
    at = "2026-03-14T15:09:29Z"
    for window, count in (
        (f"from={at}&to={at}", 1),
        ("from=2026-03-14&to=2026-03-14", 1),
        ("from=2026-03-15", 0),
        ("to=2026-03-13", 0),
        ("to=2026-03-14T15:09:28.999Z", 0),
        ("from=2026-03-14T16:09:29%2B01:00", 1),
    ):
        assert (await exact(office, f"/billing/usage?{window}", payer["key"]))["count"] == count, window


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("usage?from=yesterday", "from"),
        ("usage?to=2026-13-01", "to"),
        ("usage?from=2026-03-02&to=2026-03-01", "from"),
        ("usage?limit=0", "limit"),
        ("usage?limit=1e3", "limit"),
        ("usage?offset=-1", "offset"),
        ("stats?from=9999-12-31T23:59:59-23:00", "from"),
        ("usage?to=9999-12-31", "to"),
        ("transactions?type=gift", "type"),
        ("costs?by=colour", "by"),
        ("costs?kind=air", "kind"),
        ("usage?format=xls", "format"),
        ("usage?form=csv", "form"),
    ],
)
async def test_what_is_wrong_with_a_query_is_named(office: Office, payer: Any, query: str, field: str) -> None:
    answer = await office.call("GET", f"/billing/{query}", payer["key"])
    assert answer.status_code == 400
    assert answer.json()["error"] == "Validation failed"
    assert [one["field"] for one in answer.json()["errors"]] == [field]


async def test_what_internal_keys_use_is_in_no_bill(office: Office) -> None:
    made = await office.make(keyType="internal")
    await ran(office.house.records, made["id"], internal=True)
    for path, field in (("usage", "records"), ("workspaces", "workspaces"), ("costs", "costs")):
        assert (await exact(office, f"/billing/{path}", made["key"]))[field] == []
    assert (await exact(office, "/billing/stats", made["key"]))["totalTokens"] == 0
    assert (await exact(office, "/billing/account", made["key"]))["totalSpent"] == 0
    everybody = await exact(office, "/billing/admin/usage?by=account", None, headers={"x-admin-key": admin_text()})
    assert [(one["name"], one["charged"], one["inputTokens"]) for one in everybody["costs"]] == [(made["id"], 0, 6548)]
    charged = await exact(office, "/billing/admin/usage?internal=false", None, headers={"x-admin-key": admin_text()})
    assert charged["costs"] == []


def admin_text() -> str:
    from tests.surfaces.testbase.conftest import ADMIN

    return ADMIN


async def test_costs_are_told_apart_by_task_sandbox_workspace_model_and_day(
    office: Office, payer: dict[str, Any]
) -> None:
    records = office.house.records
    dear = await ran(records, payer["id"], sandbox="sess_1")
    await ran(records, payer["id"], tokens=TokenUse(1, 0), at=NOW + timedelta(days=1), workspace="ws_2", model="small")
    compute = Use(new_id("use"), payer["id"], UseKind.COMPUTE, NOW, Cost(7), sandbox="sess_1", seconds=7.0)
    await records.add_use(compute, NOW)
    for by, names in (
        ("task", {dear.id}),
        ("workspace", {"ws_1", "ws_2"}),
        ("sandbox", {"sess_1"}),
        ("model", {"gpt", "small"}),
        ("kind", {"model", "compute"}),
        ("day", {"2026-03-14", "2026-03-15"}),
    ):
        found = await exact(office, f"/billing/costs?by={by}", payer["key"])
        assert names <= {one["name"] for one in found["costs"]}, by
    (of_one,) = (await exact(office, "/billing/costs?by=sandbox&sandbox=sess_1", payer["key"]))["costs"]
    assert (of_one["totalCost"], of_one["uses"]) == (Decimal("0.103087"), 2)
    only = (await exact(office, "/billing/costs?by=sandbox&kind=compute", payer["key"]))["costs"]
    assert [one["totalCost"] for one in only] == [Decimal("0.000007")]
    answers.CostsAnswer.model_validate((await office.call("GET", "/billing/costs", payer["key"])).json())


async def test_an_admin_of_a_group_sees_what_its_workspaces_cost_whoever_paid(office: Office) -> None:
    alice, bob = await office.make(), await office.make()
    made = await office.call("POST", "/api/groups", alice["key"], json={"name": "crew"})
    group = made.json()["id"]
    added = await office.call(
        "POST", f"/api/groups/{group}/members", alice["key"], json={"principal": bob["id"], "role": Role.MEMBER}
    )
    assert added.status_code in (200, 201), added.text
    for who in (alice, bob):
        await ran(office.house.records, who["id"], workspace_owner=group)
    path = f"/billing/costs?by=group&group={group}"
    assert [one["uses"] for one in (await exact(office, path, alice["key"]))["costs"]] == [2]
    assert [one["uses"] for one in (await exact(office, path, bob["key"]))["costs"]] == [1]
    stranger = await office.make()
    for unknown in (group, "grp_0123456789ab"):
        answer = await office.call("GET", f"/billing/costs?group={unknown}", stranger["key"])
        assert (answer.status_code, answer.json()) == (404, {"error": "Not Found", "message": "group not found"})


async def test_a_sheet_has_everything_and_no_formula(office: Office, payer: dict[str, Any]) -> None:
    body = {"amount": 1, "description": '=HYPERLINK("http://127.0.0.1","click")'}
    await office.call("POST", f"/billing/admin/{payer['id']}/credits", json=body)
    for n in range(3):
        await ran(office.house.records, payer["id"], at=NOW + timedelta(minutes=n), agent="@agent")
    sheet = await office.call("GET", "/billing/transactions?format=csv", payer["key"])
    assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
    assert sheet.headers["content-disposition"] == 'attachment; filename="transactions.csv"'
    lines = sheet.text.split("\r\n")
    assert lines[0] == "id,apiKeyId,type,amount,balanceAfter,description,timestamp"
    assert len(lines) == 1 + 5 + 1
    assert "'=HYPERLINK" in sheet.text and ",=" not in sheet.text and ',"=' not in sheet.text
    assert any(",-0.10308," in line for line in lines)
    usage = await office.call("GET", "/billing/usage", payer["key"], headers={"accept": "text/csv"})
    assert usage.text.count("'@agent-computer") == 3
    assert (await office.call("GET", "/billing/costs?by=day&format=csv", payer["key"])).text.startswith("name,uses,")
    page = await office.call("GET", "/billing/transactions?format=csv&limit=1", payer["key"])
    assert len(page.text.split("\r\n")) == 3


async def test_a_key_that_reaches_single_things_sees_no_bill(office: Office, payer: dict[str, Any]) -> None:
    made = await office.keys.create("narrow", owner=payer["id"], resources=frozenset({"ws_1"}))
    answer = await office.call("GET", "/billing/account", made.text)
    assert (answer.status_code, answer.json()["error"]) == (403, "Forbidden")


async def test_a_key_of_somebodys_sees_the_account_that_pays_for_it(office: Office, payer: dict[str, Any]) -> None:
    made = await office.keys.create("second", owner=payer["id"])
    account = await exact(office, "/billing/account", made.text)
    assert (account["id"], account["apiKeyId"], account["creditsBalance"]) == (payer["id"], made.key.id, 10)
    assert made.key.kind is KeyKind.STANDARD
