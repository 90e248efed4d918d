"""What the SDK tells the marketplace about the price that its caller has seen."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.sdk import AsyncMarketplace, WorkerInfo

SEEN = WorkerInfo("wkr_1", "count", "ann", "1.0.0", pricing={"per_run": 0.25})
ANSWER = {"run_id": "r", "worker_id": "wkr_1", "version": "1.0.0", "sandbox_id": "s", "status": "completed"} | {
    "stdout": "", "stderr": "", "exit_code": 0, "truncated": False, "duration_s": 0, "charged": 0.25
}  # fmt: skip


@pytest.mark.parametrize(
    ("worker", "said", "bound"),
    [
        (SEEN, {}, 0.25),
        (WorkerInfo("wkr_1", "count", "ann", "1.0.0"), {}, 0),
        (SEEN, {"max_price_usd": 1}, 1),
        (SEEN, {"version": "1.0.0"}, None),
        ("wkr_1", {}, None),
    ],
)
async def test_a_worker_that_was_looked_at_costs_no_more_than_it_said(
    worker: str | WorkerInfo, said: dict[str, Any], bound: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []

    async def call(_: str, target: str, body: Any, **__: Any) -> Any:
        asked.append((target, body["max_price"]))
        return ANSWER

    market = AsyncMarketplace(url="http://127.0.0.1:1", api_key="none")
    monkeypatch.setattr(market, "_api", type("Api", (), {"call": staticmethod(call)}))
    assert (await market.run(worker, **said)).charged == 0.25
    assert asked == [("/marketplace/wkr_1/run", bound)]
