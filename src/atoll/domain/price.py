"""Price: what the tokens of a model cost, and what a call of one used; Testbase's rule, each type rounded by itself.

The price table of the settings makes `ModelPrice`s; the model gateway reads `TokenUse` from the provider's answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from atoll.domain.money import rounded


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Tokens of one call or of many. `cached` are part of `input`, `reasoning` of `output`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    estimated: bool = False  # the provider did not say it all: a stream broke

    @property
    def total(self) -> int:
        return self.input + self.output

    def __add__(self, other: TokenUse) -> TokenUse:
        return TokenUse(
            self.input + other.input,
            self.output + other.output,
            self.cached + other.cached,
            self.reasoning + other.reasoning,
            self.estimated or other.estimated,
        )


NO_TOKENS = TokenUse()


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call, in micro-dollars; `input` holds what its cached tokens cost too."""

    input: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """Micro-dollars a token, which need not be whole: 0.015 USD per 1,000 tokens are 15."""

    input: Decimal = Decimal(15)
    output: Decimal = Decimal(45)
    cached: Decimal | None = None  # None: as `input`

    def cost(self, use: TokenUse) -> Cost:
        """6,548 input and 108 output tokens at the default price cost 98,220 + 4,860 micro-dollars."""
        cached_price = self.input if self.cached is None else self.cached
        cached = min(use.cached, use.input)
        return Cost(
            rounded((use.input - cached) * self.input + cached * cached_price), rounded(use.output * self.output)
        )
