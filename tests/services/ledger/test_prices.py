"""Prices: to the micro-dollar, by model, never through a float."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from atoll.domain.money import usd
from atoll.domain.price import ModelPrice, TokenUse
from atoll.limits import price_table
from atoll.services.ledger.prices import Prices
from atoll.settings import Settings, SettingsError, load


def test_the_seeds_example_costs_what_the_seed_says() -> None:
    cost = Prices().cost("gpt-5", TokenUse(6548, 108))
    assert (usd(cost.input), usd(cost.output), usd(cost.total)) == (
        Decimal("0.09822"),
        Decimal("0.00486"),
        Decimal("0.10308"),
    )


def test_cached_tokens_have_the_input_price_unless_the_table_says_otherwise() -> None:
    use = TokenUse(1000, 0, cached=400)
    assert ModelPrice().cost(use).total == 15_000
    assert ModelPrice(cached=Decimal("1.5")).cost(use).total == 9_600


def test_b05_rounding_over_very_many_usages_is_exact() -> None:
    price = ModelPrice(Decimal("0.2625"), Decimal("1.1"))
    dice, total, exact = random.Random(5), 0, Fraction(0)
    for _ in range(200_000):
        given, said = dice.randrange(5_000), dice.randrange(2_000)
        cost = price.cost(TokenUse(given, said))
        total += cost.total
        # Each type is rounded by itself, halves up.
        exact += (given * 2625 * 2 + 10_000) // 20_000 + (said * 11 * 2 + 10) // 20
    assert total == exact


def test_a_model_has_its_own_price_or_that_of_the_name_it_continues() -> None:
    dear, dearer = ModelPrice(Decimal(1)), ModelPrice(Decimal(2))
    prices = Prices(models={"gpt-5": dear, "gpt-5-pro": dearer})
    assert prices.of("gpt-5") is prices.of("gpt-5-2025-08-07") is prices.of("gpt-5:beta") is dear
    assert prices.of("gpt-5-pro") is prices.of("gpt-5-pro-20260101") is dearer
    assert prices.of("gpt-50") is prices.of("gpt-5-mini") is prices.of("") is prices.default


def test_the_settings_fill_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "atoll.toml"
    file.write_text(
        """
[prices]
output_usd_per_1k = 0.3
compute_usd_per_s = "0.0000001"
storage_usd_per_gib_h = 0.00002
[prices.models.small]
input_usd_per_1k = 0.0001
output_usd_per_1k = "0.0004"
cached_usd_per_1k = 0.00005
"""
    )
    prices = price_table(load(file))
    assert prices.default == ModelPrice(Decimal(15), Decimal(300))
    assert prices.of("small") == ModelPrice(Decimal("0.1"), Decimal("0.4"), Decimal("0.05"))
    assert (prices.compute_per_s, prices.storage_per_gib_hour) == (Decimal("0.1"), Decimal(20))
    assert prices.compute(Decimal(25)).total == 3
    assert prices.storage(Decimal("1.5")).total == 30
    monkeypatch.setenv("ATOLL_PRICES__MODELS", '{"big": {"input_usd_per_1k": 0.1, "output_usd_per_1k": 0.7}}')
    assert price_table(load(None)).of("big") == ModelPrice(Decimal(100), Decimal(700))


def test_prices_cost_nothing_but_tokens_by_default() -> None:
    prices = price_table(Settings())
    assert prices.default == ModelPrice()
    assert (prices.compute_per_s, prices.storage_per_gib_hour) == (0, 0)


@pytest.mark.parametrize("value", ["-0.1", "NaN", "Infinity", "1e30", "free"])
def test_b05_a_price_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_PRICES__INPUT_USD_PER_1K", value)
    with pytest.raises(SettingsError, match=r"prices\.input_usd_per_1k"):
        load(None)
