"""The part of the records in memory about accounts and keys' use; `MemoryRecords` includes it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from datetime import datetime
from typing import Any

from atoll.domain.account import Account, KeyStats, QuotaRequest
from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.sandbox import Sandbox
from atoll.records.accounts import AccountRecords
from atoll.records.base import KeyUse


class MemoryAccounts(AccountRecords):
    """See `AccountRecords`."""

    _keys: dict[str, ApiKey]
    _uses: list[KeyUse]
    _sandboxes: dict[str, Sandbox]

    def __init__(self) -> None:
        super().__init__()
        self._accounts: dict[str, Account] = {}
        self._requests: list[QuotaRequest] = []

    @abstractmethod
    def _check(self) -> None:
        """Unavailable while the store plays dead."""

    @abstractmethod
    def _log(self, event: Event | None) -> None:
        """Append the event of a change."""

    async def page_keys(
        self, *, limit: int, offset: int = 0, usable_at: datetime | None = None
    ) -> tuple[list[ApiKey], int]:
        self._check()
        found = [key for key in self._keys.values() if usable_at is None or key.usable(usable_at)]
        found.sort(key=lambda key: (key.created_at, key.id), reverse=True)
        return found[offset : offset + limit], len(found)

    async def delete_key(self, key_id: str, event: Event) -> None:
        self._check()
        if key_id not in self._keys:
            raise NotFound(f"key {key_id} does not exist")
        whole: Any = self
        whole._leave_groups(key_id)
        whole._forget_leavings(key_id)
        whole._forget_access_keys(key_id)
        del self._keys[key_id]
        self._uses = [use for use in self._uses if use.key_id != key_id]
        self._accounts.pop(key_id, None)
        self._log(event)

    async def key_stats(self, key_id: str, since: datetime | None = None) -> KeyStats:
        self._check()
        uses = [use for use in self._uses if use.key_id == key_id and (since is None or use.at >= since)]
        good = sum(use.status_code < 400 for use in uses)
        return KeyStats(len(uses), good, max((use.at for use in uses), default=None))

    async def list_sandboxes_since(self, owner: str, since: datetime, *, limit: int) -> list[Sandbox]:
        self._check()
        found = [one for one in self._sandboxes.values() if one.owner == owner and one.created_at >= since]
        return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)[:limit]

    async def add_account(self, account: Account, event: Event | None) -> None:
        self._check()
        if account.id in self._accounts:
            raise Conflict("this account exists already")
        self._check_email(account)
        self._accounts[account.id] = account
        self._log(event)

    async def swap_account(self, account: Account, event: Event) -> Account:
        self._check()
        stored = self._accounts.get(account.id)
        if stored is None:
            raise NotFound(f"account {account.id} does not exist")
        if stored.version != account.version:
            raise StaleVersion
        self._check_email(account)
        after = self._accounts[account.id] = replace(account, version=account.version + 1)
        self._log(event)
        return after

    async def get_account(self, account_id: str) -> Account | None:
        self._check()
        return self._accounts.get(account_id)

    async def add_account_key(self, account: Account, key: ApiKey, event: Event, *, most: int) -> None:
        self._check()
        if key.id in self._keys or any(known.hash == key.hash for known in self._keys.values()):
            raise Conflict(f"key {key.id} exists already")
        if sum(one.email is not None for one in self._accounts.values()) >= most:
            raise QuotaExceeded("no more keys are given at present")
        await self.add_account(account, event)
        self._keys[key.id] = key

    async def add_quota_request(self, request: QuotaRequest, event: Event, *, most: int) -> QuotaRequest:
        self._check()
        if sum(one.status == "pending" for one in self._requests) >= most:
            raise QuotaExceeded(f"{most} requests wait for an answer already")
        added = replace(request, id=len(self._requests) + 1)
        self._requests.append(added)
        self._log(replace(event, target=f"quota_request_{added.id}"))
        return added

    async def list_quota_requests(self, *, limit: int = 1000) -> list[QuotaRequest]:
        self._check()
        return self._requests[::-1][:limit]

    def _check_email(self, account: Account) -> None:
        taken = {one.email for one in self._accounts.values() if one.id != account.id}
        if account.email is not None and account.email in taken:
            raise Conflict("another account has that e-mail address")
