"""The part of the records contract about accounts and what is known of keys' use; `Records` includes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from atoll.domain.account import Account, KeyStats, QuotaRequest
from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.sandbox import Sandbox


class AccountRecords(ABC):
    """Accounts, requests for quotas, and keys as who administers them sees them."""

    @abstractmethod
    async def page_keys(
        self, *, limit: int, offset: int = 0, usable_at: datetime | None = None
    ) -> tuple[list[ApiKey], int]:
        """Everybody's keys, newest first, and how many there are in all. `usable_at`: only those that are neither
        revoked nor expired then."""

    @abstractmethod
    async def delete_key(self, key_id: str, event: Event) -> None:
        """Forget a key, its account and its use log, and what only an owner has that exists: memberships of groups,
        shares, webhooks, quotas. NotFound when it is gone; Conflict while it is the only admin of a group."""

    @abstractmethod
    async def key_stats(self, key_id: str, since: datetime | None = None) -> KeyStats:
        """What the use log has of a key, from that moment on."""

    @abstractmethod
    async def list_sandboxes_since(self, owner: str, since: datetime, *, limit: int) -> list[Sandbox]:
        """An owner's made at that moment or later, removed ones too, newest first."""

    @abstractmethod
    async def add_account(self, account: Account, event: Event | None) -> None:
        """Insert. Conflict when the id or the address exists."""

    @abstractmethod
    async def swap_account(self, account: Account, event: Event) -> Account:
        """As `swap_sandbox`; Conflict when somebody else has the address."""

    @abstractmethod
    async def get_account(self, account_id: str) -> Account | None: ...

    @abstractmethod
    async def add_account_key(self, account: Account, key: ApiKey, event: Event, *, most: int) -> None:
        """Insert a key together with its account. Conflict when the key, or the address, exists; QuotaExceeded when
        `most` accounts have an address already."""

    @abstractmethod
    async def add_quota_request(self, request: QuotaRequest, event: Event, *, most: int) -> QuotaRequest:
        """Insert; returns it with its number. QuotaExceeded when `most` are pending already."""

    @abstractmethod
    async def list_quota_requests(self, *, limit: int = 1000) -> list[QuotaRequest]:
        """Newest first."""
