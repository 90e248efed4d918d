"""Money: whole micro-dollars inside, decimal dollars at the edges; no float is ever computed with.

Prices, the ledger and every surface that takes or shows an amount use it.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from atoll.domain.errors import InvalidInput

MICRO_USD = 1_000_000
AMOUNT_MAX = 10**15  # micro-dollars, a thousand million dollars: every sum of a tenant's fits into 63 bits
_CENTS = Decimal("0.000001")


def micro_usd(amount: Decimal | int | str, *, field: str = "amount") -> int:
    """Whole micro-dollars of an amount in dollars. InvalidInput, naming `field`, for what is no number, finer than a
    micro-dollar, or beyond AMOUNT_MAX either way."""
    try:
        value = Decimal(amount)
    except (InvalidOperation, ValueError, TypeError):
        raise InvalidInput(f"{field} must be a number of dollars", field=field) from None
    if not value.is_finite() or abs(value) > AMOUNT_MAX // MICRO_USD:
        raise InvalidInput(f"{field} must be at most {AMOUNT_MAX // MICRO_USD} dollars", field=field)
    if value != value.quantize(_CENTS):
        raise InvalidInput(f"{field} must be whole millionths of a dollar", field=field)
    return int(value * MICRO_USD)


def usd(micro: int) -> Decimal:
    """The same amount in dollars, exactly: 103080 -> Decimal("0.10308")."""
    value = Decimal(micro) / MICRO_USD
    return value.quantize(Decimal(1)) if value == value.to_integral() else value.normalize()


def rounded(micro: Decimal) -> int:
    """To the nearest micro-dollar, halves up, as the price of one type of token is rounded."""
    return int(micro.to_integral_value(ROUND_HALF_UP))
