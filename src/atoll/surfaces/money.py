"""Amounts at the edge: dollars as exact JSON numbers out, and whole micro-dollars from what a client sends.

The handlers that show or take money use it; pydantic's own serializer would write decimals as texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, cast

from pydantic import WithJsonSchema
from pydantic_core import to_json
from starlette.responses import Response

from atoll.domain.money import micro_usd, usd

# A JSON number in a body: `amount_of` says what is wrong with anything else.
JsonAmount = Annotated[Any, WithJsonSchema({"type": "number", "description": "dollars, to the millionth"})]
OptionalAmount = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}], "description": "dollars"})
]


def money_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON, its Decimals as numbers digit by digit: 0.10308 and never 0.10307999999999999."""
    return Response(money_json(value), status, headers, "application/json")


def money_json(value: Any) -> bytes:
    """The same, without an answer around it."""
    return _written(value).encode()


def dollars(micro: int | None) -> Decimal | None:
    """What is shown of an amount, which may be none."""
    return None if micro is None else usd(micro)


def amount_of(value: Any, *, field: str) -> int | None:
    """Micro-dollars of a JSON number; None for anything that is no number. InvalidInput, naming `field`, for one that
    is finer than a micro-dollar or beyond all bounds."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and math.isnan(value))
    ):
        return None
    return micro_usd(Decimal(repr(value)) if isinstance(value, float) else value, field=field)


def _written(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        return "{" + ",".join(f"{json.dumps(name)}:{_written(one)}" for name, one in found.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, cast("list[Any]", value))) + "]"
    return to_json(value).decode()
