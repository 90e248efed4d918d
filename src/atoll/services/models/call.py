"""One call of a model that was let through, until it is settled; model calls make it, settling reads it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from atoll.domain.ledger import Hold, Payer
from atoll.domain.price import ModelPrice
from atoll.domain.sandbox import Sandbox
from atoll.services.models.meter import Meter
from atoll.services.models.providers import Provider
from atoll.services.models.requests import ModelRequest


@dataclass(slots=True)
class Call:
    """`body` is what goes to the provider."""

    sandbox: Sandbox
    payer: Payer
    asked: ModelRequest
    provider: Provider
    model: str
    price: ModelPrice
    body: bytes
    hold: Hold | None
    meter: Meter
    begun_at: float = field(default_factory=time.monotonic)
    answered: bool = False  # the provider has begun an answer that costs
    settled: bool = False
    outcome: str = "broken"

    @property
    def task(self) -> str:
        return self.sandbox.spec.task or ""
