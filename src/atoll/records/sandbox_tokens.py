"""The records contract's part on sandbox tokens: credentials for single sandboxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from atoll.domain.event import Event
from atoll.domain.sandbox_token import SandboxToken, TokenKind


class SandboxTokenRecords(ABC):
    """A part of `Records`; what holds for all of its methods stands there."""

    @abstractmethod
    async def add_sandbox_token(self, token: SandboxToken, event: Event, *, quota: int) -> None:
        """Insert, and forget those of its sandbox that had expired at `token.created_at`. Conflict when the id or the
        hash exists; QuotaExceeded when the sandbox has `quota` of that kind already: N+k concurrent calls at quota N
        insert exactly N."""

    @abstractmethod
    async def redeem_sandbox_token(
        self, link_id: str, token: SandboxToken, events: Sequence[Event], *, quota: int
    ) -> None:
        """As `add_sandbox_token`, and forget the link in the same step. NotFound when that is gone already: of
        concurrent calls one adds its token. Whatever is refused leaves the link as it was."""

    @abstractmethod
    async def find_sandbox_token(self, token_hash: str) -> SandboxToken | None:
        """By the SHA-256 of its text (a unique index: no scan)."""

    @abstractmethod
    async def get_sandbox_token(self, token_id: str) -> SandboxToken | None: ...

    @abstractmethod
    async def list_sandbox_tokens(self, sandbox_id: str, kind: TokenKind) -> list[SandboxToken]:
        """Oldest first, expired ones too."""

    @abstractmethod
    async def delete_sandbox_token(self, token_id: str, event: Event) -> None:
        """Forget it. NotFound, and no event, when it is gone already."""

    @abstractmethod
    async def prune_sandbox_tokens(self, expired_before: datetime) -> int:
        """Delete those that expired before that moment; returns how many."""
