"""What an author may publish: names, tags, prices and addresses are checked here before the marketplace stores them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from atoll.domain.errors import InvalidInput
from atoll.domain.money import micro_usd
from atoll.domain.worker import precedence

NAME_CHARS_MAX = 128
DESCRIPTION_CHARS_MAX = 4096
TAGS_MAX, TAG_CHARS_MAX = 32, 64
URL_CHARS_MAX = 2048
WORDS_MAX, COMMAND_CHARS_MAX = 256, 16_384
PRICING_MAX, PRICING_CHARS_MAX = 32, 4096
PER_RUN = "per_run"  # dollars; the one name of a pricing that has an effect


@dataclass(frozen=True, slots=True)
class Offer:
    """What somebody publishes; `version` None: the next one."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    endpoint_url: str | None = None
    command: tuple[str, ...] = ()
    template: str = "host"
    pricing: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: str | None = None
    public: bool = True


def check_offer(offer: Offer) -> None:
    """InvalidInput that names the field."""
    _check_text(offer.name, NAME_CHARS_MAX, "name", at_least=1)
    _check_text(offer.description, DESCRIPTION_CHARS_MAX, "description", lines=True)
    if len(offer.tags) > TAGS_MAX:
        raise InvalidInput(f"tags must be at most {TAGS_MAX}", field="tags")
    for tag in offer.tags:
        _check_text(tag, TAG_CHARS_MAX, "tags", at_least=1)
        if "," in tag:
            raise InvalidInput("tags must not contain a comma, which stands between them in a search", field="tags")
    if offer.endpoint_url is None and not offer.command:
        raise InvalidInput("one of endpoint_url and command is required", field="endpoint_url")
    if offer.endpoint_url is not None:
        _check_url(offer.endpoint_url)
    _check_command(offer.command)
    _check_text(offer.template, 255, "template", at_least=1)
    if offer.version is not None:
        precedence(offer.version)


def price_of(pricing: Mapping[str, Any]) -> int:
    """Micro-dollars of one run. InvalidInput for a price that is none, or a pricing that cannot be kept."""
    if len(pricing) > PRICING_MAX:
        raise InvalidInput(f"pricing must have at most {PRICING_MAX} names", field="pricing")
    try:
        written = json.dumps(dict(pricing), ensure_ascii=False, allow_nan=False)
        written.encode()
    except (ValueError, RecursionError):
        raise InvalidInput("pricing must be plain JSON", field="pricing") from None
    if len(written) > PRICING_CHARS_MAX:
        raise InvalidInput(f"pricing must be at most {PRICING_CHARS_MAX} characters of JSON", field="pricing")
    if pricing.get("currency", "USD") != "USD":
        raise InvalidInput("pricing.currency must be USD", field="pricing.currency")
    price = pricing.get(PER_RUN, 0)
    if isinstance(price, bool) or not isinstance(price, int | float) or math.isnan(price):
        raise InvalidInput("pricing.per_run must be a number of dollars", field="pricing.per_run")
    amount = micro_usd(Decimal(repr(price)) if isinstance(price, float) else price, field="pricing.per_run")
    if amount < 0:
        raise InvalidInput("pricing.per_run must not be negative", field="pricing.per_run")
    return amount


def _check_text(text: str, chars_max: int, name: str, *, at_least: int = 0, lines: bool = False) -> None:
    if not at_least <= len(text.strip()) or len(text) > chars_max:
        raise InvalidInput(f"{name} must have {at_least} to {chars_max} characters", field=name)
    printed = "".join(text.split("\n")).replace("\t", "") if lines else text
    if not printed.isprintable():
        raise InvalidInput(f"{name} must not contain control characters", field=name)


def _check_url(url: str) -> None:
    """Its form alone: the server never connects to it."""
    wrong = InvalidInput("endpoint_url must be an http or https URL without a user in it", field="endpoint_url")
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > URL_CHARS_MAX:
        raise wrong
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise wrong


def _check_command(command: tuple[str, ...]) -> None:
    if len(command) > WORDS_MAX or sum(map(len, command)) > COMMAND_CHARS_MAX:
        most = f"at most {WORDS_MAX} words and {COMMAND_CHARS_MAX} characters"
        raise InvalidInput(f"command must be {most}", field="command")
    if command and not command[0]:
        raise InvalidInput("command must name a program", field="command")
    if any("\0" in word for word in command):
        raise InvalidInput("command must not contain NUL", field="command")
