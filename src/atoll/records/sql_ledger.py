"""The ledger in SQL: accounts, credits and what is asked of them; `sql.py` inherits it.

Holds and charges are in `sql_holds.py`, uses and their sums in `sql_uses.py`, the movement of money in
`sql_postings.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select, update

from atoll.domain.errors import InvalidInput
from atoll.domain.event import Event
from atoll.domain.ledger import BillingAccount, NewTransfer, Transfer, TransferKind
from atoll.domain.ledger_rules import balance_after, check_amount, check_name, check_refund, check_repeated, day_of
from atoll.records.ledger import KEEP, LimitChange
from atoll.records.ledger_rows import account_of, transfer_of
from atoll.records.prepared import Prepared
from atoll.records.schema import ledger_accounts, ledger_days, ledger_transfers
from atoll.records.sql_chain import append_event
from atoll.records.sql_holds import SqlHolds
from atoll.records.sql_postings import Movement, locked_account, move, set_account
from atoll.records.sql_store import event_values, storable
from atoll.records.sql_uses import SqlUses

_accounts, _transfers = ledger_accounts.c, ledger_transfers.c
_GET = Prepared(select(ledger_accounts).where(_accounts.id == bindparam("wanted")))
_FIRST = Prepared(
    select(ledger_transfers).where(_transfers.account == bindparam("of"), _transfers.key == bindparam("under"))
)
_REFUNDED = Prepared(
    select(func.sum(_transfers.amount).label("refunded")).where(
        _transfers.account == bindparam("of"), _transfers.kind == TransferKind.REFUND.value
    )
)
_SET_LIMITS = Prepared(
    update(ledger_accounts)
    .where(_accounts.id == bindparam("of"))
    .values(
        daily_limit=bindparam("new_daily"), monthly_limit=bindparam("new_monthly"), updated_at=bindparam("new_updated")
    )
)


def _refunded(connection: Connection, account: str) -> int:
    found = _REFUNDED.first(connection, {"of": account})
    return 0 if found is None else int(found["refunded"] or 0)


class SqlLedger(SqlHolds, SqlUses):
    """See `LedgerRecords` for what each method does."""

    async def billing_account(self, account: str, now: datetime) -> BillingAccount:
        check_name(account)
        found = await self._one(_GET, account_of, wanted=account)
        if found is not None:
            return found
        storable({"account": account})
        return await self._commit(lambda connection: locked_account(connection, account, now), durable=False)

    async def transfer(self, wanted: NewTransfer, event: Event) -> Transfer:
        check_name(wanted.account)
        check_amount(wanted.amount)
        if wanted.kind in (TransferKind.USAGE, TransferKind.EARNING):
            raise InvalidInput("what was used is charged, and earned, with its use", field="kind")
        movement = Movement(
            wanted.kind,
            wanted.amount,
            event.at,
            key=wanted.key,
            description=wanted.description,
            detail=wanted.detail,
        )
        storable({"account": wanted.account, "key": wanted.key, "description": wanted.description})
        happened = event_values(event)

        def transfer(connection: Connection) -> Transfer:
            account = locked_account(connection, wanted.account, event.at)
            if wanted.key is not None:
                first = _FIRST.first(connection, {"of": wanted.account, "under": wanted.key})
                if first is not None:
                    done = transfer_of(first)
                    check_repeated(done, wanted)
                    return done
            if wanted.kind is TransferKind.REFUND:
                check_refund(account, _refunded(connection, wanted.account), wanted)
            after = replace(account, balance=balance_after(account, wanted), updated_at=event.at)
            set_account(connection, after)
            moved = move(connection, after, movement)
            append_event(connection, happened)
            return moved

        return await self._commit(transfer)

    async def set_spending_limits(
        self, account: str, *, daily: LimitChange, monthly: LimitChange, event: Event
    ) -> BillingAccount:
        check_name(account)
        storable({"account": account})
        happened = event_values(event)

        def limit(connection: Connection) -> BillingAccount:
            before = locked_account(connection, account, event.at)
            a_day = before.daily_limit if daily == KEEP else daily
            a_month = before.monthly_limit if monthly == KEEP else monthly
            limits = {"of": account, "new_daily": a_day, "new_monthly": a_month, "new_updated": event.at}
            _SET_LIMITS.run(connection, limits)
            append_event(connection, happened)
            return replace(before, daily_limit=a_day, monthly_limit=a_month, updated_at=event.at)

        return await self._commit(limit)

    async def spent_since(self, account: str, since: datetime) -> int:
        query = select(func.coalesce(func.sum(ledger_days.c.spent), 0).label("spent")).where(
            ledger_days.c.account == account, ledger_days.c.day >= day_of(since)
        )
        return (await self._all(query, lambda row: int(row["spent"])))[0]

    async def list_transfers(
        self,
        account: str,
        *,
        kind: TransferKind | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Transfer]:
        query = select(ledger_transfers).where(_transfers.account == account)
        if kind is not None:
            query = query.where(_transfers.kind == kind.value)
        if since is not None:
            query = query.where(_transfers.at >= since)
        if until is not None:
            query = query.where(_transfers.at < until)
        return await self._all(query.order_by(_transfers.id.desc()).limit(limit).offset(offset), transfer_of)

    async def all_transfers(self, *, after: int = 0, limit: int = 10_000) -> Sequence[Transfer]:
        query = select(ledger_transfers).where(_transfers.id > after).order_by(_transfers.id).limit(limit)
        return await self._all(query, transfer_of)

    async def all_billing_accounts(self, *, after: str = "", limit: int = 10_000) -> Sequence[BillingAccount]:
        query = select(ledger_accounts).where(_accounts.id > after).order_by(_accounts.id).limit(limit)
        return await self._all(query, account_of)
