"""The records contract of requests that are to have one effect, however often they are sent.

The surfaces' idempotency service calls it; `atoll.testing.idempotency_conformance` holds every store to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from atoll.domain.idempotency import IdempotentRequest


class IdempotencyRecords(ABC):
    """One row for each key of each principal, until it is forgotten."""

    @abstractmethod
    async def begin_request(self, request: IdempotentRequest, *, forgotten: datetime) -> IdempotentRequest | None:
        """Remember it, before it has any effect; None then. The one that has its key already, begun after `forgotten`.

        Of concurrent calls with one key one gets None.
        """

    @abstractmethod
    async def answer_request(self, request: IdempotentRequest, *, bytes_max: int | None = None) -> None:
        """Keep its answer; no error when it is not remembered any more. An empty one instead, where one above
        SMALL_BYTES would make the owner's answers of that kind larger than `bytes_max` in all."""

    @abstractmethod
    async def forget_request(self, request: IdempotentRequest) -> None:
        """It had no effect: its key is as if it had never been used. Only while it has no answer."""

    @abstractmethod
    async def prune_requests(self, before: datetime, *, kept: int | None = None) -> int:
        """Forget those that were begun before, and of each owner all but the newest `kept`; returns how many."""
