"""Tokens of other issuers: whom they make a principal of, what is refused, and that trust in one is short."""

from __future__ import annotations

import time
from typing import Any

import pytest

from atoll.domain.errors import Unauthenticated
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.services.identity.external import External
from atoll.services.identity.jwt_checks import Rules
from atoll.services.identity.passwords import Passwords
from atoll.services.identity.providers import Provider
from atoll.services.identity.standing import Standing
from atoll.services.identity.users import OPERATOR, UserChanges, Users
from atoll.services.identity.verification_keys import from_pem
from atoll.services.outbound import Outbound
from atoll.testing.memory_records import MemoryRecords
from tests.services.identity.forging import AUDIENCE, ISSUER, claims, pem, rsa_key, sign, sign_with_secret
from tests.services.identity.provider_stand_in import jwk, serving


class World:
    """One provider with a static key, its users, and clocks that a test turns."""

    def __init__(self, **provider: Any) -> None:
        self.records = MemoryRecords()
        self.now = 1_000.0
        self.standing = Standing(self.records, cache_s=2.0, monotonic=lambda: self.now)
        self.users = Users(self.records, Passwords(), self.standing)
        self.outbound = Outbound()
        keys = tuple(from_pem(pem(rsa_key()).decode(), ["RS256"]))
        one = Provider("test", Rules(ISSUER, frozenset({AUDIENCE})), keys=keys, **provider)
        self.external = self.door(one)

    def door(self, *providers: Provider) -> External:
        return External(providers, self.users, self.standing, self.outbound, cache_s=2.0, monotonic=lambda: self.now)


async def test_the_first_login_makes_one_user_and_every_later_one_finds_them() -> None:
    world = World()
    first = await world.external.authenticate(sign(claims(name="Alice"), kid="any"))
    again = await world.external.authenticate(sign(claims(jti="another")))
    assert first == again
    assert (first.id[:5], first.kind, first.scopes, first.plan) == ("user_", KeyKind.STANDARD, DEFAULT_SCOPES, "user")
    assert (first.name, first.admin, first.credential[:5]) == ("Alice", False, "oidc_")
    bob = await world.external.authenticate(sign(claims(sub="bob")))
    assert bob.id != first.id and bob.credential != first.credential
    assert [user.subject for user in await world.users.list(OPERATOR)].count("auth0|alice") == 1


async def test_the_same_subject_of_another_issuer_is_somebody_else() -> None:
    world = World()
    keys = tuple(from_pem(pem(rsa_key()).decode(), ["RS256"]))
    both = world.door(
        Provider("one", Rules(ISSUER, frozenset({AUDIENCE})), keys=keys),
        Provider("two", Rules("https://two.example", frozenset({AUDIENCE})), keys=keys),
    )
    one = await both.authenticate(sign(claims()))
    two = await both.authenticate(sign(claims(iss="https://two.example")))
    assert one.id != two.id


async def test_a_token_of_one_provider_is_never_checked_with_the_keys_of_another() -> None:
    world = World()
    other = tuple(from_pem(pem(rsa_key(2048, 1)).decode(), ["RS256"]))
    both = world.door(
        Provider("one", Rules(ISSUER, frozenset({AUDIENCE})), keys=other),
        Provider("two", Rules("https://two.example", frozenset({AUDIENCE})), keys=other),
    )
    with pytest.raises(Unauthenticated):
        await both.authenticate(sign(claims()))
    with pytest.raises(Unauthenticated):
        await both.authenticate(sign(claims(iss="https://three.example"), rsa_key(2048, 1)))


async def test_a07_a_disabled_user_is_refused_at_once_here_and_elsewhere_within_the_cache() -> None:
    world = World()
    text = sign(claims())
    alice = await world.external.authenticate(text)
    elsewhere = Standing(world.records, cache_s=2.0, monotonic=lambda: world.now)
    there = External(
        world.external._providers.values(), world.users, elsewhere, world.outbound, monotonic=lambda: world.now
    )
    await there.authenticate(text)
    await world.users.change(OPERATOR, alice.id, UserChanges(disabled=True))
    with pytest.raises(Unauthenticated):
        await world.external.authenticate(text)
    world.now += 2.0
    with pytest.raises(Unauthenticated):
        await there.authenticate(text)
    with pytest.raises(Unauthenticated):
        await world.external.authenticate(sign(claims(jti="fresh")))
    await world.users.change(OPERATOR, alice.id, UserChanges(disabled=False))
    assert (await world.external.authenticate(text)).id == alice.id


async def test_a_token_is_checked_once_a_moment_and_not_beyond_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    checks: list[str] = []
    check = world.external._check_signature

    async def counting(token: Any, provider: Provider) -> None:
        checks.append(token.text)
        await check(token, provider)

    monkeypatch.setattr(world.external, "_check_signature", counting)
    text = sign(claims())
    for _ in range(100):
        await world.external.authenticate(text)
    assert len(checks) == 1
    world.now += 2.0
    await world.external.authenticate(text)
    assert len(checks) == 2
    almost = sign(claims(exp=time.time() - 29.5))  # within the skew for half a second more
    await world.external.authenticate(almost)
    assert world.external._checked.popitem()[1].until - world.now < 1.0


async def test_the_memory_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.services.identity.external.REMEMBERED_MAX", 3)
    world = World()
    for number in range(10):
        await world.external.authenticate(sign(claims(jti=number)))
    assert len(world.external._checked) == 3


async def test_scopes_come_from_a_claim_only_where_the_operator_says_so() -> None:
    listed = claims(permissions=["atoll:read", "read", "atoll:admin", 7], scope="atoll:read atoll:write")
    assert (await World().external.authenticate(sign(listed))).scopes == DEFAULT_SCOPES
    by_list = World(scopes_claim="permissions", scope_prefix="atoll:")
    assert (await by_list.external.authenticate(sign(listed))).scopes == {Scope.READ}
    by_text = World(scopes_claim="scope", scope_prefix="atoll:")
    assert (await by_text.external.authenticate(sign(listed))).scopes == {Scope.READ, Scope.WRITE}
    assert (await by_text.external.authenticate(sign(claims()))).scopes == frozenset()


@pytest.mark.parametrize("name", ["azp", "client_id"])
async def test_only_named_clients_may_have_asked_for_a_token(name: str) -> None:
    world = World(clients=frozenset({"console"}))
    assert await world.external.authenticate(sign(claims(**{name: "console"})))
    for wrong in ({name: "other"}, {name: ["console"]}, {}, {"azp": "other", "client_id": "console"}):
        with pytest.raises(Unauthenticated):
            await world.external.authenticate(sign(claims(**wrong)))


@pytest.mark.parametrize(
    ("wanted", "taken", "refused"),
    [
        ("org_1", ["org_1", ["org_0", "org_1"]], ["org_2", "", None, ["org_2"], [["org_1"]], {"org_1": True}, ...]),
        (False, [False, [False]], [True, 0, "false", None, ...]),
        (1, [1], [True, "1", 1.0, ...]),
    ],
)
async def test_a_token_must_say_what_the_operator_requires(wanted: Any, taken: list[Any], refused: list[Any]) -> None:
    world = World(required_claims=(("org", wanted),))
    for said in taken:
        assert await world.external.authenticate(sign(claims(org=said)))
    for said in refused:
        with pytest.raises(Unauthenticated):
            await world.external.authenticate(sign(claims(org=said)))


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"email": "a@example.com", "preferred_username": "alice"}, "a@example.com"),
        ({"name": "bad\nname", "preferred_username": "alice"}, "alice"),
        ({"name": "Alice", "email": "a@example.com"}, "Alice"),
    ],
)
async def test_a_name_is_taken_from_the_claim_that_has_one(said: dict[str, str], name: str) -> None:
    world = World()
    assert (await world.external.authenticate(sign(claims(**said)))).name == name


async def test_an_odd_name_is_no_name() -> None:
    world = World()
    for number, name in enumerate(["a\nb", "\ud800", "n" * 300, 7, {"a": 1}, None]):
        made = await world.external.authenticate(sign(claims(sub=f"odd{number}", name=name)))
        assert made.name == made.id


async def test_only_texts_in_the_form_of_a_token_are_recognised() -> None:
    world = World()
    assert world.external.recognises(sign(claims()))
    for text in ("sk_" + "0" * 64, "", "ey", "a.b.c", "ey.b", "ey.b.c.d"):
        assert not world.external.recognises(text)
    assert not world.door().recognises(sign(claims()))


async def test_an_algorithm_that_is_not_pinned_is_no_reason_to_look_for_keys() -> None:
    async with serving(jwk(rsa_key(), "right")) as provider:
        world = World()
        door = world.door(Provider("real", Rules(provider.issuer, frozenset({AUDIENCE}))))
        with pytest.raises(Unauthenticated):
            await door.authenticate(sign(claims(iss=provider.issuer), rsa_key(), "RS512", kid="right"))
        assert provider.asked == []
        await door.close()
    await world.outbound.close()


async def test_a08_what_a_token_brings_along_chooses_no_key() -> None:
    """Headers with a key, an address of one, an id that is a path or a query: the provider's own keys decide."""
    mine = rsa_key(2048, 1)
    async with serving(jwk(rsa_key(), "right")) as provider, serving(jwk(mine, "right")) as thief:
        world = World()
        door = world.door(Provider("real", Rules(provider.issuer, frozenset({AUDIENCE}))))
        said = claims(iss=provider.issuer)
        assert await door.authenticate(sign(said, kid="right"))
        steal = f"{thief.issuer}/keys"
        forged = [
            sign(said, mine, kid="right"),
            sign(said, mine, kid="right", jwk=jwk(mine, "right")),
            sign(said, mine, kid="right", jku=steal),
            sign(said, mine, kid="right", x5u=steal),
            sign(said, mine, kid="right", x5c=["MIIB"]),
            sign(said, mine, kid=steal),
            sign(said, mine, kid="../../../../dev/null"),
            sign(said, mine, kid="right' OR '1'='1"),
            sign(said, mine, kid="right\x00"),
            sign_with_secret(said, pem(rsa_key()), kid="right"),
            sign_with_secret(said, b"", kid="../../../../dev/null"),
            sign(said | {"iss": thief.issuer}, mine, kid="right"),
        ]
        for text in forged:
            with pytest.raises(Unauthenticated):
                await door.authenticate(text)
        assert thief.asked == []
        await door.close()
    await world.outbound.close()
