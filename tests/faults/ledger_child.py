"""A process that moves money and is killed on the way; test_c01_ledger.py runs it and looks at what is left.

`python -m tests.faults.ledger_child URL FILE credit|hold|settle POINT` arms POINT in FILE, whose name stands in
ATOLL_CRASH_AT, before the one step that is to be cut short; `... spend` charges until it is killed and prints what
was done.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from atoll.domain.ids import new_id
from atoll.domain.key import KeyKind
from atoll.domain.ledger import Budget, Hold, HoldState, Payer, Use, UseKind
from atoll.domain.price import Cost
from atoll.domain.principal import Principal
from atoll.records.base import Records
from atoll.records.sql import open_records
from atoll.services.ledger.ledger import Ledger

ADMIN = Principal("admin", KeyKind.OWNER, frozenset(), admin=True)
ACCOUNT, GIVEN, HELD, COST = "user_1", 1_000_000, 500, 300
PAYER = Payer(ACCOUNT, budgets=(Budget("task_1", GIVEN),), task="task_1")
CLIENTS = 8
LASTS_S = 3_600.0


def use(use_id: str = "use_1") -> Use:
    return Use(use_id, ACCOUNT, UseKind.MODEL, datetime.now(UTC), Cost(COST), task="task_1")


async def credit(ledger: Ledger, key: str) -> None:
    await ledger.credit(ADMIN, ACCOUNT, GIVEN, key=key)


async def hold(ledger: Ledger) -> Hold:
    held = await ledger.hold(PAYER, HELD, lasts_s=LASTS_S)
    assert held is not None and held.state is HoldState.PENDING
    return held


async def spend(ledger: Ledger) -> None:
    async def client() -> None:
        while True:
            one = use(new_id("use"))
            await ledger.settle(await hold(ledger), one)
            print(one.id, flush=True)

    await asyncio.gather(*[client() for _ in range(CLIENTS)])


async def main(url: str, file: str, step: str, point: str = "") -> None:
    records: Records = open_records(url)
    await records.start()
    ledger = Ledger(records)
    await credit(ledger, "first")
    if step == "spend":
        await spend(Ledger(records))
    held = await hold(ledger) if step == "settle" else None
    Path(file).write_text(point)
    if step == "credit":
        await credit(ledger, "second")
    elif step == "hold":
        await hold(ledger)
    else:
        await ledger.settle(held, use())
    await records.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
