"""Keys that providers publish: found by discovery, fetched seldom, used on while the provider is down; N08's rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from atoll.domain.errors import Unavailable
from atoll.services.identity.jwt_checks import Rules
from atoll.services.identity.providers import Provider
from atoll.services.identity.published_keys import LOOK_AGAIN_S, PublishedKeys
from atoll.services.outbound import Outbound, OutboundLimits
from tests.services.identity.forging import ec_key, rsa_key
from tests.services.identity.provider_stand_in import ProviderStandIn, jwk, serving

CONFIGURATION, KEYS = "/realm/.well-known/openid-configuration", "/realm/keys"
FIRST, SECOND = jwk(rsa_key(), "first"), jwk(rsa_key(2048, 1), "second")


class Hands:
    """Of a clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def published(
    provider: ProviderStandIn, hands: Hands | None = None, *, issuer: str | None = None, jwks_url: str | None = None
) -> AsyncGenerator[PublishedKeys]:
    """As the authenticator has them, without the loop in the background."""
    outbound = Outbound(OutboundLimits(timeout_s=2.0))
    rules = Rules(issuer or provider.issuer, frozenset({"us"}))
    keys = PublishedKeys(
        Provider("test", rules, jwks_url=jwks_url), outbound, stale_s=3_600.0, monotonic=hands or Hands()
    )
    try:
        yield keys
    finally:
        await keys.close()
        await outbound.close()


async def ids(keys: PublishedKeys, key_id: str | None, algorithm: str = "RS256") -> list[str | None]:
    return [key.id for key in await keys.find(key_id, algorithm)]


async def test_keys_are_found_by_discovery_once_for_all_who_wait() -> None:
    async with serving(FIRST, SECOND) as provider, published(provider) as keys:
        found = await asyncio.gather(*(ids(keys, "first") for _ in range(50)))
        assert found == [["first"]] * 50
        assert provider.asked == [CONFIGURATION, KEYS]
        assert await ids(keys, "first", "ES256") == []
        assert await ids(keys, None) == []  # two fit: none may be guessed


async def test_a_single_key_needs_no_id() -> None:
    async with serving(FIRST) as provider, published(provider) as keys:
        assert await ids(keys, None) == ["first"]


async def test_keys_at_a_given_address_need_no_discovery() -> None:
    async with serving(FIRST) as provider:
        url = f"http://127.0.0.1:{provider.port}/anywhere"
        async with published(provider, issuer="https://issuer.example", jwks_url=url) as keys:
            assert await ids(keys, "first") == ["first"]
        assert provider.asked == ["/anywhere"]


async def test_unknown_key_ids_make_us_look_again_but_seldom() -> None:
    hands = Hands()
    async with serving(FIRST) as provider, published(provider, hands) as keys:
        assert await ids(keys, "first") == ["first"]
        for number in range(1_000):
            assert await ids(keys, f"random {number}") == []
        assert provider.asked == [CONFIGURATION, KEYS]
        hands.now += LOOK_AGAIN_S
        provider.keys = [SECOND]
        await asyncio.gather(*(ids(keys, f"random {number}") for number in range(1_000)))
        assert provider.asked == [CONFIGURATION, KEYS] * 2
        assert await ids(keys, "second") == ["second"]
        assert await ids(keys, "first") == []  # withdrawn


async def test_keys_serve_on_while_their_provider_is_down_and_not_for_ever() -> None:
    hands = Hands()
    async with serving(FIRST) as provider, published(provider, hands) as keys:
        assert await ids(keys, "first") == ["first"]
        provider.status = 500
        hands.now += 3_000
        assert await ids(keys, "first") == ["first"]
        with pytest.raises(Unavailable):  # it may be a new one: that is no reason to call a token wrong
            await keys.find("second", "RS256")
        hands.now += 1_000
        with pytest.raises(Unavailable):
            await keys.find("first", "RS256")
        asked = len(provider.asked)
        for _ in range(100):
            with pytest.raises(Unavailable):
                await keys.find("first", "RS256")
        assert len(provider.asked) == asked
        provider.status = 200
        hands.now += 60
        assert await ids(keys, "first") == ["first"]


async def test_they_are_kept_fresh_in_the_background() -> None:
    async with serving(FIRST) as provider:
        outbound = Outbound()
        rules = Rules(provider.issuer, frozenset({"us"}))
        keys = PublishedKeys(Provider("test", rules), outbound, refresh_s=0.02)
        keys.start()
        try:
            assert await ids(keys, "first") == ["first"]
            provider.keys = [SECOND]
            for _ in range(1_000):
                await asyncio.sleep(0.01)
                if not await ids(keys, "first"):  # withdrawn, though nobody asked for another
                    break
            assert await ids(keys, "second") == ["second"]
        finally:
            await keys.close()
            await keys.close()
            await outbound.close()


async def test_a_start_does_not_wait_for_a_provider_that_is_down() -> None:
    async with serving(FIRST) as provider, published(provider) as keys:
        provider.delay_s = 60
        async with asyncio.timeout(1):
            keys.start()
            await asyncio.sleep(0)
            await keys.close()


ELSEWHERE = "https://another.example/keys"
WRONG = {
    "another issuer": {"issuer": "http://127.0.0.1/other"},
    "the issuer with a slash": {"issuer": ...},
    "no keys": {"jwks_uri": None},
    "keys that are a list": {"jwks_uri": ["http://127.0.0.1/"]},
    "keys in a file": {"jwks_uri": "file:///etc/passwd"},
    "keys behind a user": {"jwks_uri": "https://user@127.0.0.1/"},
    "keys at a cloud's metadata": {"jwks_uri": "http://169.254.169.254/latest"},
    "keys in a private network": {"jwks_uri": "https://10.0.0.1/keys"},
    "keys on another port here": {"jwks_uri": "http://127.0.0.1:1/keys"},
}


@pytest.mark.parametrize("case", WRONG)
async def test_n08_a_configuration_that_leads_astray_is_not_followed(case: str) -> None:
    async with serving(FIRST) as provider, published(provider) as keys:
        provider.configuration = {
            name: provider.issuer + "/" if value is ... else value for name, value in WRONG[case].items()
        }
        with pytest.raises(Unavailable):
            await keys.find("first", "RS256")
        assert provider.asked == [CONFIGURATION]


async def test_n08_another_server_on_this_machine_is_not_asked_for_keys() -> None:
    async with serving(FIRST) as provider, serving(FIRST) as inside, published(provider) as keys:
        provider.configuration = {"jwks_uri": f"{inside.issuer}/keys"}
        with pytest.raises(Unavailable):
            await keys.find("first", "RS256")
        assert (provider.asked, inside.asked) == ([CONFIGURATION], [])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"{}"),
        (301, b""),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"[" * 100_000),
        (200, b'{"keys": []}'),
        (200, b"x" * 1_000_000),
    ],
)
async def test_n08_an_odd_answer_is_no_key_and_no_crash(status: int, body: bytes) -> None:
    async with serving(FIRST) as provider, published(provider) as keys:
        provider.status, provider.body = status, body
        with pytest.raises(Unavailable):
            await keys.find("first", "RS256")


async def test_keys_of_other_kinds_than_the_pinned_are_no_keys() -> None:
    async with serving(jwk(ec_key(), "e")) as provider, published(provider) as keys:
        with pytest.raises(Unavailable):
            await keys.find("e", "ES256")
