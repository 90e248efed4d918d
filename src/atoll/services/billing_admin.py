"""BillingAdmin: credits, refunds and limits of anybody's account, and what everybody used; for who administers.

Testbase's `/billing/admin` and `atoll billing` call it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.domain.bill import TaskBill
from atoll.domain.errors import InvalidInput
from atoll.domain.ids import GROUP_ID, KEY_ID
from atoll.domain.ledger import SYSTEM_ACCOUNTS, BillingAccount, Transfer, TransferKind
from atoll.domain.principal import Principal
from atoll.domain.user import USER_ID
from atoll.records.base import Records
from atoll.records.ledger import KEEP as KEEP
from atoll.records.ledger import LimitChange as LimitChange
from atoll.records.ledger import UseTotal
from atoll.services.billing import PAGE_ROWS, Billing, CostQuery, Page, UsageStats, Window
from atoll.services.identity.admin_key import AdminRequired, AdminUnset
from atoll.services.identity.principals import user_meant
from atoll.services.key_admin import NoKey

if TYPE_CHECKING:
    from atoll.services.ledger.ledger import Ledger

DESCRIPTION_CHARS_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Named:
    """An account, and the name that it was asked for by."""

    subject: str  # a key's, a user's or a group's id
    account: str


class BillingAdmin:
    """Each method asks first whether the principal may administer; `configured`: whether the settings name a key."""

    def __init__(self, records: Records, ledger: Ledger, billing: Billing, *, configured: bool = True) -> None:
        self._records = records
        self._ledger = ledger
        self._billing = billing
        self._configured = configured

    def require(self, principal: Principal) -> None:
        """AdminRequired for who may not administer, or AdminUnset where nobody was given a key for it."""
        if not principal.admin:
            raise AdminRequired if self._configured else AdminUnset

    async def named(self, principal: Principal, subject: str) -> Named:
        """The account that pays for a key, a user (by id or name) or a group. NoKey."""
        self.require(principal)
        subject = await user_meant(self._records, subject)
        if USER_ID.match(subject):
            known = await self._records.get_user(subject) is not None
        elif GROUP_ID.match(subject):
            known = await self._records.get_group(subject) is not None
        else:
            key = await self._records.get_key(subject) if KEY_ID.match(subject) else None
            if key is not None:
                return Named(subject, key.owner)
            known = False
        if not known:
            raise NoKey
        return Named(subject, subject)

    async def account(self, principal: Principal, subject: str) -> tuple[Named, BillingAccount]:
        """NoKey."""
        named = await self.named(principal, subject)
        return named, await self._ledger.account(named.account)

    async def accounts(self, principal: Principal) -> AsyncIterator[BillingAccount]:
        """All that there are, in the order of their ids; not the system's own."""
        self.require(principal)
        after = ""
        while found := await self._records.all_billing_accounts(after=after, limit=PAGE_ROWS):
            for one in found:
                if one.id not in SYSTEM_ACCOUNTS:
                    yield one
            after = found[-1].id

    async def credit(
        self, principal: Principal, subject: str, amount: int, *, description: str = "", key: str | None = None
    ) -> tuple[Named, BillingAccount]:
        """Give credits, or take them back with an amount below 0. With a `key` that the account has seen nothing moves.
        NoKey; InsufficientCredit when more is taken than there is."""
        named = await self.named(principal, subject)
        _check(description)
        account = await self._ledger.credit(principal, named.account, amount, description=description, key=key)
        return named, account

    async def refund(
        self, principal: Principal, subject: str, amount: int, *, description: str = "", key: str | None = None
    ) -> tuple[Named, BillingAccount]:
        """Give back what was charged. NoKey; InvalidInput for an amount that is not above 0."""
        named = await self.named(principal, subject)
        _check(description)
        if amount <= 0:
            raise InvalidInput("amount must be above 0: a refund gives back", field="amount")
        account = await self._ledger.refund(principal, named.account, amount, description=description, key=key)
        return named, account

    async def set_limits(
        self, principal: Principal, subject: str, *, daily: LimitChange = KEEP, monthly: LimitChange = KEEP
    ) -> tuple[Named, BillingAccount]:
        """Bound what an account may spend in a day and in a month, UTC. None takes a bound away. NoKey."""
        named = await self.named(principal, subject)
        for field, limit in (("dailyLimit", daily), ("monthlyLimit", monthly)):
            if isinstance(limit, int) and limit < 0:
                raise InvalidInput(f"{field} must not be below 0", field=field)
        if (daily, monthly) == (KEEP, KEEP):
            return named, await self._ledger.account(named.account)
        return named, await self._ledger.set_limits(principal, named.account, daily=daily, monthly=monthly)

    async def stats(self, principal: Principal, subject: str, window: Window) -> UsageStats:
        """NoKey."""
        named = await self.named(principal, subject)
        return await self._billing.stats_of(named.account, window)

    async def tasks(
        self, principal: Principal, subject: str, window: Window, page: Page
    ) -> tuple[Named, AsyncIterator[TaskBill]]:
        """NoKey."""
        named = await self.named(principal, subject)
        return named, self._billing.tasks_of(named.account, window, page)

    async def transfers(
        self, principal: Principal, subject: str, window: Window, page: Page, *, kind: TransferKind | None = None
    ) -> tuple[Named, AsyncIterator[Transfer]]:
        """NoKey."""
        named = await self.named(principal, subject)
        return named, self._billing.transfers_of(named.account, window, page, kind=kind)

    async def costs(
        self,
        principal: Principal,
        subject: str | None,
        query: CostQuery,
        window: Window,
        page: Page,
        *,
        internal: bool | None = None,
    ) -> AsyncIterator[UseTotal]:
        """Somebody's, or everybody's; `internal` None counts in what nobody is charged for. NoKey."""
        self.require(principal)
        account = None if subject is None else (await self.named(principal, subject)).account
        return self._billing.costs_of(account, query, window, page, internal=internal)


def _check(description: str) -> None:
    if len(description) > DESCRIPTION_CHARS_MAX or "\0" in description:
        raise InvalidInput(f"description must be at most {DESCRIPTION_CHARS_MAX} characters", field="description")
