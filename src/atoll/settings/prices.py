"""Prices: what models' tokens, compute and storage cost whoever is charged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from atoll.settings.section import Section

NAME_CHARS_MAX = 200


def _exact(value: Any) -> Any:
    """A number that a file or a JSON text wrote with a point has its shortest form: what was written."""
    return repr(value) if isinstance(value, float) else value


_Usd = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0, le=1_000, max_digits=20, decimal_places=12)]


class ModelPriceSettings(Section):
    """Of one model."""

    input_usd_per_1k: _Usd
    output_usd_per_1k: _Usd
    cached_usd_per_1k: _Usd | None = None


class PriceSettings(Section):
    input_usd_per_1k: _Usd = Decimal("0.015")
    """Dollars for 1,000 input tokens of a model that `models` does not name."""
    output_usd_per_1k: _Usd = Decimal("0.045")
    """Dollars for 1,000 output tokens, reasoning included."""
    cached_usd_per_1k: _Usd | None = None
    """Dollars for 1,000 input tokens that the provider had cached. Empty: as other input tokens."""
    models: Mapping[str, ModelPriceSettings] = {}
    """Models with other prices: a table for each, with `input_usd_per_1k`, `output_usd_per_1k` and, where it differs,
    `cached_usd_per_1k`. `gpt-5` is the price of `gpt-5-2025-08-07` too. Environment: JSON."""
    compute_usd_per_s: _Usd = Decimal(0)
    """Dollars for a second of compute of a sandbox."""
    storage_usd_per_gib_h: _Usd = Decimal(0)
    """Dollars for a GiB stored for an hour."""

    @field_validator("models", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return json.loads(value, parse_float=str) if isinstance(value, str) else value

    @field_validator("models")
    @classmethod
    def _named(cls, value: Mapping[str, ModelPriceSettings]) -> Mapping[str, ModelPriceSettings]:
        for name in value:
            if not name or len(name) > NAME_CHARS_MAX:
                raise ValueError(f"a model's name has 1 to {NAME_CHARS_MAX} characters")
        return value
