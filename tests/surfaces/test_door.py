"""The door: limits by key, address and prefix; whose word about addresses counts (A15, W06)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from ipaddress import IPv4Network, ip_network
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from atoll.domain.errors import RateLimited, Unauthenticated
from atoll.domain.key import DEFAULT_SCOPES, KeyKind
from atoll.domain.principal import Principal
from atoll.surfaces.credentials import bearer_text
from atoll.surfaces.door import Door, DoorLimits, is_loopback, network_of

GOOD, OWNERS = "sk_" + "9" * 64, "sk_" + "8" * 64


class KeyRing:
    looks = 0

    def __init__(self) -> None:
        self.kinds = {GOOD: KeyKind.STANDARD, OWNERS: KeyKind.OWNER}

    async def authenticate(self, text: str) -> Principal:
        self.looks += 1
        if text not in self.kinds:
            raise Unauthenticated
        return Principal("key_000000000000", self.kinds[text], DEFAULT_SCOPES)

    still_good = authenticate

    def log_use(self, *_: Any, **__: Any) -> None: ...


def scope(text: str | None = GOOD, peer: str = "203.0.113.5", forwarded: str | None = None) -> dict[str, Any]:
    headers = [] if text is None else [(b"authorization", b"Bearer " + text.encode())]
    if forwarded is not None:
        headers.append((b"x-forwarded-for", forwarded.encode()))
    return {"type": "http", "headers": headers, "client": (peer, 1234)}


async def outcomes(door: Door, *scopes: dict[str, Any]) -> list[str]:
    found = []
    for one in scopes:
        try:
            await door.admit(one)
            found.append("in")
        except (RateLimited, Unauthenticated) as error:
            found.append(error.code)
    return found


async def test_a_key_is_limited_wherever_it_comes_from() -> None:
    door = Door(KeyRing(), DoorLimits(key_per_s=0.001, key_burst=3))
    found = await outcomes(door, *(scope(peer=f"203.0.113.{n}") for n in range(5)))
    assert found == ["in", "in", "in", "rate_limited", "rate_limited"]


async def test_an_address_is_limited_whatever_its_keys() -> None:
    door = Door(KeyRing(), DoorLimits(address_per_s=0.001, address_burst=2))
    assert await outcomes(door, scope(), scope(OWNERS), scope()) == ["in", "in", "rate_limited"]
    assert await outcomes(door, scope(peer="203.0.113.6")) == ["in"]


async def test_the_owner_is_not_limited_from_this_machine_and_is_from_elsewhere() -> None:
    door = Door(KeyRing(), DoorLimits(key_per_s=0.001, key_burst=1))
    assert await outcomes(door, *[scope(OWNERS, "127.0.0.1")] * 5) == ["in"] * 5
    assert await outcomes(door, scope(OWNERS), scope(OWNERS)) == ["in", "rate_limited"]


@pytest.mark.parametrize(("trusted", "free"), [((), False), ((ip_network("127.0.0.0/8"),), True)])
async def test_a15_who_comes_through_a_proxy_on_this_machine_is_on_it_only_if_a_trusted_one_says_so(
    trusted: tuple[IPv4Network, ...], free: bool
) -> None:
    door = Door(KeyRing(), DoorLimits(key_per_s=0.001, key_burst=1, trusted_proxies=trusted))
    proxied = scope(OWNERS, "127.0.0.1", forwarded="127.0.0.1")
    assert await outcomes(door, proxied, proxied) == ["in", "in" if free else "rate_limited"]
    elsewhere = scope(OWNERS, "127.0.0.1", forwarded="203.0.113.7")
    assert await outcomes(door, elsewhere, elsewhere) == ["in" if free else "rate_limited", "rate_limited"]


async def test_a_standard_key_is_limited_from_this_machine_too() -> None:
    door = Door(KeyRing(), DoorLimits(key_per_s=0.001, key_burst=1))
    assert await outcomes(door, *[scope(GOOD, "127.0.0.1")] * 2) == ["in", "rate_limited"]


async def test_a15_a_guesser_is_stopped_and_soon_before_the_records_are_asked() -> None:
    keys = KeyRing()
    door = Door(keys, DoorLimits(refused_per_s=0.001, refused_burst=10, address_per_s=0.001, address_burst=20))
    guesses = [scope(f"sk_{n:064x}") for n in range(1000)]
    found = await outcomes(door, *guesses)
    assert found[:10] == ["unauthorized"] * 10
    assert set(found[10:]) == {"rate_limited"}
    assert keys.looks == 30
    assert await outcomes(door, scope(GOOD, "203.0.113.9")) == ["in"]  # others are not concerned


@pytest.mark.parametrize("refused", [None, "sk_{:064x}", GOOD[:12] + "{:055x}"])
async def test_a15_who_comes_from_a_guessers_address_with_a_key_never_seen_is_let_in(refused: str | None) -> None:
    door = Door(KeyRing(), DoorLimits(refused_per_s=0.001, refused_burst=2))
    found = await outcomes(door, *(scope(refused and refused.format(n)) for n in range(50)))
    assert found == ["unauthorized"] * 2 + ["rate_limited"] * 48
    assert await outcomes(door, scope(GOOD)) == ["in"]


async def test_a15_a_guesser_does_not_lock_out_a_key_that_was_good_before() -> None:
    door = Door(KeyRing(), DoorLimits(refused_per_s=0.001, refused_burst=2))
    assert await outcomes(door, scope(GOOD)) == ["in"]
    await outcomes(door, *(scope(f"sk_{n:064x}") for n in range(50)))
    assert await outcomes(door, scope(GOOD)) == ["in"]


async def test_a15_many_addresses_cannot_share_the_guesses_at_one_prefix() -> None:
    keys = KeyRing()
    door = Door(keys, DoorLimits(refused_per_s=0.001, refused_burst=5, address_per_s=0.001, address_burst=20))
    found = await outcomes(
        door, *(scope("sk_123456789" + f"{n:055x}", f"203.0.{n // 250}.{n % 250}") for n in range(500))
    )
    assert found.count("unauthorized") == 5
    assert keys.looks == 25


@pytest.mark.parametrize("texts", ["eyJhbGciOiJFZERTQSJ9.e30.{:043x}", "atoll-conn:0{:063x}"])
async def test_a15_guesses_from_many_addresses_at_what_all_tokens_begin_with_keep_nobody_out(texts: str) -> None:
    keys, fresh = KeyRing(), texts.format(10**9)
    door = Door(keys, DoorLimits(refused_per_s=0.001, refused_burst=5))
    guesses = [scope(texts.format(n), f"203.0.{n // 250}.{n % 250}") for n in range(500)]
    assert await outcomes(door, *guesses) == ["unauthorized"] * 500
    keys.kinds[fresh] = KeyKind.STANDARD
    assert await outcomes(door, scope(fresh, "198.51.100.1")) == ["in"]
    # from one address they run out as any other guesses do
    assert (await outcomes(door, *[scope(texts.format(n), "198.51.100.2") for n in range(7)])).count(
        "unauthorized"
    ) == 5


async def test_a15_requests_without_any_key_count_as_refused() -> None:
    door = Door(KeyRing(), DoorLimits(refused_per_s=0.001, refused_burst=3))
    assert await outcomes(door, *[scope(None)] * 5) == ["unauthorized"] * 3 + ["rate_limited"] * 2


@pytest.mark.parametrize("forwarded", ["10.9.9.9", "1.2.3.4, 5.6.7.8", "127.0.0.1", "nonsense"])
async def test_a15_a_spoofed_address_is_not_believed(forwarded: str) -> None:
    door = Door(KeyRing(), DoorLimits(trusted_proxies=(ip_network("10.0.0.0/8"),)))
    assert door.peer(scope(forwarded=forwarded)) == "203.0.113.5"


@pytest.mark.parametrize(
    ("forwarded", "peer"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("1.1.1.1, 198.51.100.7", "198.51.100.7"),  # what the client made up stands to the left
        ("198.51.100.7, 10.0.0.9", "198.51.100.7"),  # two proxies of ours
        ("127.0.0.1, nonsense", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("10.0.0.3", "10.0.0.3"),
    ],
)
def test_a15_a_trusted_proxy_is_believed_as_far_as_it_goes(forwarded: str, peer: str) -> None:
    door = Door(KeyRing(), DoorLimits(trusted_proxies=(ip_network("10.0.0.0/8"),)))
    assert door.peer(scope(peer="10.0.0.1", forwarded=forwarded)) == peer


def test_an_ipv6_network_counts_as_one_address() -> None:
    assert network_of("2001:db8:1:2:aaaa::1") == network_of("2001:db8:1:2:bbbb::2") == "2001:db8:1:2::/64"
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("192.0.2.1", False), ("127.0.0.1.example.com", False), ("127.evil", False)],
)  # fmt: skip
def test_loopback_is_this_machines_own(host: str, own: bool) -> None:
    assert is_loopback(host) is own


@pytest.mark.parametrize(
    ("value", "text"),
    [(b"Bearer a", "a"), (b"bearer a", "a"), (b"BEARER   a ", "a"), (b"Bearer", None), (b"Bearer ", None),
     (b"Basic a", None), (b"a", None), (b"Bearer \xff", None), (b"Bearer " + b"a" * 9000, None)],
)  # fmt: skip
def test_only_a_bearer_text_is_a_credential(value: bytes, text: str | None) -> None:
    assert bearer_text(value) == text


async def test_limits_are_429_with_retry_after_over_http(open_house: Any, keys: Any) -> None:
    async with open_house(rates={"key_per_s": 0.5, "key_burst": 3}) as house:
        answers = [await house.call("GET", "/v1/sessions") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].json()["code"] == "RATE_LIMIT_EXCEEDED"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
        assert (await house.call("GET", "/v1/sessions", keys.OWNER)).status_code == 200
        assert (await house.call("GET", "/health", None)).status_code == 200


async def test_limits_can_be_turned_off(open_house: Any) -> None:
    async with open_house(rates={"key_per_s": 0.5, "key_burst": 1, "enabled": False}) as house:
        assert {(await house.call("GET", "/v1/sessions")).status_code for _ in range(5)} == {200}


async def test_w06_streams_of_one_key_are_capped_and_health_stays_up(open_house: Any, keys: Any) -> None:
    async with open_house(limits={"ws_per_key": 5}, rates={"enabled": False}) as house:
        session = await house.create(command=["sleep", "60"])
        path = f"/v1/sessions/{session['id']}/attach"
        async with AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(house.socket(path))
            with pytest.raises(InvalidStatus) as refused:
                async with house.socket(path):
                    pass
            assert refused.value.response.status_code == 429
            assert "Retry-After" in refused.value.response.headers
            assert (await house.call("GET", "/health", None)).status_code == 200
            theirs = await house.create(keys.BOB)
            async with house.socket(f"/v1/sessions/{theirs['id']}/exec?cmd=true", keys.BOB):
                pass  # another key has places of its own
        await asyncio.sleep(0.05)
        async with house.socket(path):
            pass  # a place that was given back is free


async def test_each_request_is_noted_against_its_key(house: Any) -> None:
    session = await house.create()
    await house.call("GET", f"/v1/sessions/{session['id']}/files?path=/none")
    async with house.socket(f"/v1/sessions/{session['id']}/exec?cmd=true") as socket:
        [_ async for _ in socket]
    await asyncio.sleep(0.05)
    assert house.keys.uses == [
        ("key_a11ce0000000", "POST", "/v1/sessions", 201),
        ("key_a11ce0000000", "GET", "/v1/sessions/{id}/files", 404),
        ("key_a11ce0000000", "GET", "/v1/sessions/{id}/exec", 101),
    ]


def test_the_tokens_of_a_key_have_no_streams_beyond_the_keys_own() -> None:
    door = Door(KeyRing(), DoorLimits(sockets_per_key=2))
    of = [Principal("key_1", KeyKind.STANDARD, DEFAULT_SCOPES, credential=f"stk_{n}", rated_as="key_1") for n in "ab"]
    with door.socket(of[0]), door.socket(Principal("key_1", KeyKind.STANDARD, DEFAULT_SCOPES)):
        with pytest.raises(RateLimited), door.socket(of[1]):
            pass
        with door.socket(Principal("key_2", KeyKind.STANDARD, DEFAULT_SCOPES)):
            pass
    with door.socket(of[0]), door.socket(of[1]):
        pass


async def test_only_so_many_good_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.surfaces.door.MAX_GOOD_KEYS", 1)
    door = Door(KeyRing())
    for text in (GOOD, OWNERS, GOOD):
        assert await outcomes(door, scope(text)) == ["in"]
        assert list(door._good) == [hash(text)]
