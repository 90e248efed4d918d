"""The sandbox tokens' part of MemoryRecords, in a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.sandbox_token import SandboxToken, TokenKind
from atoll.records.sandbox_tokens import SandboxTokenRecords


class MemorySandboxTokens(SandboxTokenRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    _check: Any  # what the rest of MemoryRecords has
    _log: Any

    def __init__(self) -> None:
        super().__init__()
        self._sandbox_tokens: dict[str, SandboxToken] = {}

    async def add_sandbox_token(self, token: SandboxToken, event: Event, *, quota: int) -> None:
        self._check()
        stay = {
            name: one
            for name, one in self._sandbox_tokens.items()
            if one.sandbox != token.sandbox or one.expires_at > token.created_at
        }
        kept = sum(one.sandbox == token.sandbox and one.kind is token.kind for one in stay.values())
        if kept >= quota:
            raise QuotaExceeded(f"{token.kind} token limit of the sandbox reached ({kept}/{quota})")
        if token.id in stay or any(one.hash == token.hash for one in stay.values()):
            raise Conflict(f"a sandbox token {token.id} exists already")
        self._sandbox_tokens = {**stay, token.id: token}
        self._log(event)

    async def redeem_sandbox_token(
        self, link_id: str, token: SandboxToken, events: Sequence[Event], *, quota: int
    ) -> None:
        self._check()
        before = self._sandbox_tokens
        if link_id not in before:
            raise NotFound(f"sandbox token {link_id} does not exist")
        self._sandbox_tokens = {name: one for name, one in before.items() if name != link_id}
        try:
            await self.add_sandbox_token(token, events[0], quota=quota)
        except BaseException:
            self._sandbox_tokens = before
            raise
        for event in events[1:]:
            self._log(event)

    async def find_sandbox_token(self, token_hash: str) -> SandboxToken | None:
        self._check()
        return next((one for one in self._sandbox_tokens.values() if one.hash == token_hash), None)

    async def get_sandbox_token(self, token_id: str) -> SandboxToken | None:
        self._check()
        return self._sandbox_tokens.get(token_id)

    async def list_sandbox_tokens(self, sandbox_id: str, kind: TokenKind) -> list[SandboxToken]:
        self._check()
        found = [one for one in self._sandbox_tokens.values() if one.sandbox == sandbox_id and one.kind is kind]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    async def delete_sandbox_token(self, token_id: str, event: Event) -> None:
        self._check()
        if self._sandbox_tokens.pop(token_id, None) is None:
            raise NotFound(f"sandbox token {token_id} does not exist")
        self._log(event)

    async def prune_sandbox_tokens(self, expired_before: datetime) -> int:
        self._check()
        before = len(self._sandbox_tokens)
        self._sandbox_tokens = {
            name: one for name, one in self._sandbox_tokens.items() if one.expires_at >= expired_before
        }
        return before - len(self._sandbox_tokens)
