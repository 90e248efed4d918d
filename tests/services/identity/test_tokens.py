"""Access tokens: what opens, what is refused, and how soon what was ended is refused everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from atoll.domain.errors import Unauthenticated
from atoll.domain.key import DEFAULT_SCOPES, KeyKind
from atoll.services.identity import own_tokens
from atoll.services.identity.signing_keys import RS256
from atoll.services.identity.users import OPERATOR, UserChanges
from tests.services.identity.forging import ec_key, ed_key, part, rsa_key, sign, sign_raw, sign_with_secret
from tests.services.identity.logged_in import Pair, Server, forged


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
async def genuine(pair: Pair) -> str:
    await pair.here.user()
    return (await pair.here.login()).access.text


async def refused(server: Server, text: str) -> bool:
    """Also by who asks whether it is ours: it is either nobody's or refused."""
    try:
        await server.tokens.authenticate(text)
    except Unauthenticated:
        return True
    return False


@pytest.mark.parametrize("algorithm", ["EdDSA", RS256])
async def test_a_token_says_who_came_and_with_which_login(pair: Pair, algorithm: str) -> None:
    server = pair.server(algorithm=algorithm)
    user = await server.user(name="Ann", admin=True)
    text = (await server.login()).access.text
    assert server.tokens.recognises(text) and pair.there.tokens.recognises(text)
    principal = await pair.there.tokens.authenticate(text)
    assert (principal.id, principal.kind, principal.name, principal.plan) == (user.id, KeyKind.STANDARD, "Ann", "user")
    assert (principal.scopes, principal.admin, principal.resources) == (DEFAULT_SCOPES, True, None)
    assert principal.credential.startswith("login_")
    header, claims = jwt.get_unverified_header(text), jwt.decode(text, options={"verify_signature": False})
    assert (header["alg"], header["typ"]) == (algorithm, "at+jwt") and header["kid"].startswith("sig_")
    assert {"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "sid", "scope", "client_id"} == set(claims)
    assert (claims["sub"], claims["sid"], claims["exp"] - claims["iat"]) == (user.id, principal.credential, 900)


async def test_others_texts_are_not_recognised(pair: Pair, genuine: str) -> None:
    for text in ("", "sk_" + "a" * 64, "a.b.c", "ey.ey.ey", sign({"iss": "https://issuer.example"}), genuine + "."):
        assert not pair.there.tokens.recognises(text)


def _header(text: str, **changed: Any) -> str:
    return part(jwt.get_unverified_header(text) | changed)


def _swap_signature(text: str) -> str:
    head, claims, signature = text.split(".")
    return f"{head}.{claims}.{signature[:-4]}{'AAAA' if signature[-4:] != 'AAAA' else 'BBBB'}"


FORGED: dict[str, Callable[[str, bytes], str]] = {
    "alg none": lambda text, _: f"{_header(text, alg='none')}.{text.split('.')[1]}.",
    "alg None": lambda text, _: f"{_header(text, alg='None')}.{text.split('.')[1]}.",
    "none with the signature": lambda text, _: f"{_header(text, alg='none')}.{'.'.join(text.split('.')[1:])}",
    "an empty signature": lambda text, _: text.rpartition(".")[0] + ".",
    "no signature": lambda text, _: text.rpartition(".")[0],
    "a wrong signature": lambda text, _: _swap_signature(text),
    "HS256 with the public key": lambda text, pem: sign_with_secret(
        jwt.decode(text, options={"verify_signature": False}), pem, kid=jwt.get_unverified_header(text)["kid"]
    ),
    "the header says HS256": lambda text, _: f"{_header(text, alg='HS256')}.{'.'.join(text.split('.')[1:])}",
    "another Ed25519 key": lambda text, _: sign_raw(*text.split(".")[:2], ed_key(), "EdDSA"),
    "RS256 of a key of one's own": lambda text, _: sign_raw(
        _header(text, alg="RS256"), text.split(".")[1], rsa_key(), "RS256"
    ),
    "ES256 of a key of one's own": lambda text, _: sign_raw(
        _header(text, alg="ES256"), text.split(".")[1], ec_key(), "ES256"
    ),
    "a key in the header": lambda text, _: sign_raw(
        _header(text, jwk=json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(ed_key().public_key())), kid="mine"),
        text.split(".")[1], ed_key(), "EdDSA",
    ),
    "an address of keys in the header": lambda text, _: sign_raw(
        _header(text, jku="http://127.0.0.1:1/jwks", kid="mine"), text.split(".")[1], ed_key(), "EdDSA"
    ),
    "no key id": lambda text, _: f"{part({'alg': 'EdDSA', 'typ': 'at+jwt'})}.{'.'.join(text.split('.')[1:])}",
    "a key id that is a path": lambda text, _: f"{_header(text, kid='../../dev/null')}.{'.'.join(text.split('.')[1:])}",
    "a key id that is SQL": lambda text, _: f"""{_header(text, kid="' OR 1=1 --")}.{'.'.join(text.split('.')[1:])}""",
    "a key id that is a number": lambda text, _: f"{_header(text, kid=1)}.{'.'.join(text.split('.')[1:])}",
    "padding": lambda text, _: text.replace(".", "=.", 1),
    "white space": lambda text, _: text + "\n",
    "huge": lambda text, _: text + "A" * 10_000,
}  # fmt: skip


@pytest.mark.parametrize("how", FORGED)
async def test_a08_a_forged_algorithm_key_or_signature_is_refused(pair: Pair, genuine: str, how: str) -> None:
    key, private = await pair.here.signing_keys.signer()
    text = FORGED[how](genuine, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert key.public and text != genuine
    for server in (pair.here, pair.there):
        await server.tokens.authenticate(genuine)
        assert await refused(server, text)


CLAIMS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "atoll2"},
    "part of the issuer": {"iss": "toll"},
    "no issuer": {"iss": ...},
    "a list of issuers": {"iss": ["atoll"]},
    "another audience": {"aud": "other"},
    "no audience": {"aud": ...},
    "a list of audiences": {"aud": ["atoll"]},
    "an expired one": {"exp": 1},
    "exp as text": {"exp": "99999999999"},
    "exp as null": {"exp": None},
    "exp as true": {"exp": True},
    "no exp": {"exp": ...},
    "exp years away": {"exp": 4_000_000_000},
    "exp beyond numbers": {"exp": 10**30},
    "not valid yet": {"nbf": 1_767_226_000},
    "nbf as text": {"nbf": "0"},
    "no nbf": {"nbf": ...},
    "from the future": {"iat": 1_767_300_000},
    "from long ago": {"iat": 0},
    "no iat": {"iat": ...},
    "sub as a number": {"sub": 1},
    "sub as a list": {"sub": ["user_000000000000000000000000"]},
    "no sub": {"sub": ...},
    "another user": {"sub": "user_000000000000000000000000"},
    "no user": {"sub": "key_000000000000"},
    "no login": {"sid": ...},
    "another login": {"sid": "login_000000000000000000000000"},
    "a login that is a list": {"sid": ["login_000000000000000000000000"]},
    "a key for a login": {"sid": "key_000000000000"},
    "a key that it is bound to": {"cnf": {"jkt": "x"}},
}


@pytest.mark.parametrize("how", CLAIMS)
async def test_a10_a_wrong_claim_is_refused_though_our_own_key_signed_it(pair: Pair, genuine: str, how: str) -> None:
    assert await refused(pair.there, await forged(pair.here, genuine, **CLAIMS[how]))
    assert not await refused(pair.there, await forged(pair.here, genuine))


HEADERS: dict[str, dict[str, Any]] = {
    "an unknown crit": {"crit": ["exp2"], "exp2": 1},
    "an empty crit": {"crit": []},
    "crit with what is known elsewhere": {"crit": ["b64"], "b64": True},
    "b64": {"b64": False},
    "an identity token": {"typ": "JWT"},
    "no type": {"typ": ...},
    "a logout token": {"typ": "logout+jwt"},
    "a type that is a list": {"typ": ["at+jwt"]},
}


@pytest.mark.parametrize("how", HEADERS)
async def test_a10_a_wrong_header_is_refused_though_our_own_key_signed_it(pair: Pair, genuine: str, how: str) -> None:
    assert await refused(pair.there, await forged(pair.here, genuine, HEADERS[how]))


async def test_a10_a_claim_that_stands_twice_is_refused(pair: Pair, genuine: str) -> None:
    key, private = await pair.here.signing_keys.signer()
    claims = jwt.decode(genuine, options={"verify_signature": False})
    twice = json.dumps(claims)[:-1] + ', "sub": "user_000000000000000000000000"}'
    head = part({"alg": "EdDSA", "typ": "at+jwt", "kid": key.id})
    assert await refused(pair.there, sign_raw(head, part(twice.encode()), private, "EdDSA"))
    assert not await refused(pair.there, sign_raw(head, part(json.dumps(claims).encode()), private, "EdDSA"))


async def test_scopes_beyond_ours_open_nothing(pair: Pair, genuine: str) -> None:
    for scope, expected in (("read admin root", {"read"}), ("", set()), (["read"], set()), ("readwrite", set())):
        principal = await pair.there.tokens.authenticate(await forged(pair.here, genuine, scope=scope))
        assert {one.value for one in principal.scopes} == expected


async def test_a_token_expires_to_the_second_however_fresh_the_cache_is(pair: Pair, genuine: str) -> None:
    pair.time.pass_s(904.5)
    assert not await refused(pair.here, genuine)
    pair.time.pass_s(0.5)
    assert await refused(pair.here, genuine)


async def test_a07_what_was_ended_is_refused_here_at_once_and_elsewhere_within_two_seconds(pair: Pair) -> None:
    await pair.here.user()
    ends = {
        "logout": lambda tokens: pair.here.logins.logout(refresh_token=tokens.refresh),
        "disable": lambda _: pair.here.users.change(OPERATOR, "ann", UserChanges(disabled=True)),
        "enable": lambda _: pair.here.users.change(OPERATOR, "ann", UserChanges(disabled=False)),
        "password": lambda _: pair.here.users.set_password(OPERATOR, "ann", "correct horse battery"),
        "delete": lambda _: pair.here.users.delete(OPERATOR, "ann"),
    }
    for how, end in ends.items():
        if how == "enable":
            await end(None)
            continue
        tokens = await pair.here.login()
        for server in (pair.here, pair.there):
            assert not await refused(server, tokens.access.text), how
        await end(tokens)
        assert await refused(pair.here, tokens.access.text), how
        pair.time.pass_s(2.01)
        assert await refused(pair.there, tokens.access.text), how


async def test_a_warm_token_asks_the_records_once_in_a_while(pair: Pair, genuine: str) -> None:
    await pair.there.tokens.authenticate(genuine)
    pair.records.down = True
    for _ in range(20):
        await pair.there.tokens.authenticate(genuine)
    pair.records.down = False
    pair.time.pass_s(2.01)
    await pair.there.tokens.authenticate(genuine)


async def test_what_is_verified_is_remembered_in_bounds(
    pair: Pair, genuine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_tokens, "REMEMBERED_MAX", 3)
    for number in range(10):
        await pair.there.tokens.authenticate(await forged(pair.here, genuine, jti=str(number)))
        await refused(pair.there, await forged(pair.here, genuine, iss=f"wrong {number}"))
    assert len(pair.there.tokens._own._remembered) == 3  # pyright: ignore[reportPrivateUsage]


async def test_a_token_of_a_key_that_got_out_is_refused(pair: Pair, genuine: str) -> None:
    await pair.there.tokens.authenticate(genuine)
    await pair.here.signing_keys.rotate("cli")
    assert not await refused(pair.here, genuine)
    pair.time.pass_s(10)
    assert not await refused(pair.there, await forged(pair.there, genuine))  # it looks at the keys now
    await pair.here.signing_keys.rotate("cli", revoke=True)
    assert await refused(pair.here, genuine)
    pair.time.pass_s(1.9)
    await refused(pair.there, genuine)  # whatever it is taken for: it is for no two seconds more
    pair.time.pass_s(0.11)
    assert await refused(pair.there, genuine)


async def test_a_token_does_not_outlast_its_login(pair: Pair) -> None:
    from atoll.services.identity.logins import LoginLimits

    server = pair.server(limits=LoginLimits(refresh_ttl_s=100, login_ttl_s=100))
    await server.user()
    access = (await server.login()).access
    assert access.expires_in_s == 100
    pair.time.pass_s(101)
    assert await refused(server, access.text)
