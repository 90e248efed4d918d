"""Prices: what a model's tokens, a second of compute and a GiB of storage cost; from the settings' table.

The ledger carries it, the model gateway and metering ask it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from atoll.domain.money import rounded
from atoll.domain.price import Cost, ModelPrice, TokenUse

_NOTHING = Decimal(0)
_EDITION = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{6,8}|latest)|[:@].+")


class Prices:
    """In micro-dollars, which need not be whole: 0.015 USD per 1,000 tokens are 15 a token."""

    def __init__(
        self,
        default: ModelPrice | None = None,
        models: Mapping[str, ModelPrice] | None = None,
        *,
        compute_per_s: Decimal = _NOTHING,
        storage_per_gib_hour: Decimal = _NOTHING,
    ) -> None:
        self.default = default or ModelPrice()
        self.models = dict(models or {})
        self.compute_per_s = compute_per_s
        self.storage_per_gib_hour = storage_per_gib_hour

    def of(self, model: str) -> ModelPrice:
        """Of the model of that name; else of the longest name in the table that it continues by a date or by `latest`
        (`gpt-5-2025-08-07` has the price of `gpt-5`, `gpt-5-pro` has not), or after a `:` or an `@`; else the
        default."""
        found = self.models.get(model)
        if found is not None:
            return found
        known = [name for name in self.models if model.startswith(name) and _EDITION.fullmatch(model, len(name))]
        return self.models[max(known, key=len)] if known else self.default

    def cost(self, model: str, tokens: TokenUse) -> Cost:
        """Of those tokens of that model."""
        return self.of(model).cost(tokens)

    def compute(self, seconds: Decimal) -> Cost:
        """Of so many seconds of compute."""
        return Cost(rounded(seconds * self.compute_per_s))

    def storage(self, gib_hours: Decimal) -> Cost:
        """Of so many GiB for an hour each."""
        return Cost(rounded(gib_hours * self.storage_per_gib_hour))
