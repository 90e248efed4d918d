"""The checks of tokens: what passes, and that every forged algorithm and every wrong claim is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from atoll.domain.errors import Unauthenticated
from atoll.services.identity import jwt_checks
from atoll.services.identity.jwt_checks import Rules, TokenRefused, Verified, check_claims, check_signature, take_apart
from tests.services.identity import forging
from tests.services.identity.forging import (
    AUDIENCE,
    ISSUER,
    PrivateKey,
    claims,
    ec_key,
    ed_key,
    part,
    pem,
    rsa_key,
    sign,
    sign_raw,
    sign_with_secret,
)

RULES = Rules(ISSUER, frozenset({AUDIENCE, "second"}))
NOW = time.time()


def check(text: str, key: PrivateKey | None = None, algorithms: frozenset[str] = frozenset({"RS256"})) -> Verified:
    token = take_apart(text)
    check_signature(token, (key or rsa_key()).public_key(), algorithms)
    return check_claims(token, RULES, NOW)


@pytest.fixture(autouse=True)
def _at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables below were made when this file was loaded, which may be long ago by now."""
    monkeypatch.setattr(forging, "time", SimpleNamespace(time=lambda: NOW))


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("RS256", rsa_key), ("PS384", rsa_key), ("ES256", ec_key), ("EdDSA", ed_key)],
)
def test_a_good_token_says_who_it_is_for(algorithm: str, key: Callable[[], PrivateKey]) -> None:
    text = sign(claims(exp=int(NOW) + 60, name="Alice"), key(), algorithm, kid="one")
    token = take_apart(text)
    assert (token.issuer, token.key_id, token.type) == (ISSUER, "one", "jwt")
    verified = check(text, key(), frozenset({algorithm}))
    assert (verified.subject, verified.expires_at_s, verified.claims["name"]) == ("auth0|alice", int(NOW) + 60, "Alice")


def test_one_audience_of_a_list_is_enough() -> None:
    assert check(sign(claims(aud=["other", "second"]))).subject == "auth0|alice"


def test_times_may_be_fractions_and_may_be_off_by_the_skew() -> None:
    assert check(sign(claims(exp=NOW - 5, iat=NOW + 5.5, nbf=NOW + 5.5)))


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt", ...])
def test_an_access_token_may_say_so(kind: Any) -> None:
    assert check(sign(claims(), typ=kind))


ALGORITHMS = {
    "none": lambda: f"{part({'alg': 'none'})}.{part(claims())}.",
    "none with a signature": lambda: sign(claims(), alg="none"),
    "None": lambda: sign(claims(), alg="None"),
    "no algorithm": lambda: sign(claims(), alg=...),
    "a list of algorithms": lambda: sign(claims(), alg=["RS256"]),
    "an empty signature": lambda: sign(claims()).rpartition(".")[0] + ".",
    "no signature": lambda: sign(claims()).rpartition(".")[0],
    "the signature of another": lambda: sign(claims(sub="bob")).rpartition(".")[0] + "." + sign(claims()).split(".")[2],
    "HS256 with the public key": lambda: sign_with_secret(claims(), pem(rsa_key())),
    "HS256 with the public key's DER": lambda: sign_with_secret(claims(), pem(rsa_key()).strip()),
    "another key": lambda: sign(claims(), rsa_key(2048, 1)),
    "RS512, which is not allowed": lambda: sign(claims(), rsa_key(), "RS512"),
    "PS256, which is not allowed": lambda: sign(claims(), rsa_key(), "PS256"),
    "ES256 in place of RS256": lambda: sign(claims(), ec_key(), "ES256"),
    "ES256 that says RS256": lambda: sign(claims(), ec_key(), "ES256", alg="RS256"),
    "EdDSA in place of RS256": lambda: sign(claims(), ed_key(), "EdDSA"),
    "an extension": lambda: sign(claims(), crit=["b64"], b64=True),
    "an extension that nobody knows": lambda: sign(claims(), crit=["exp"]),
    "an empty list of extensions": lambda: sign(claims(), crit=[]),
    "a detached payload": lambda: sign(claims(), b64=False),
    "an encrypted token": lambda: ".".join([*sign(claims()).split("."), "x", "y"]),
    "padding": lambda: sign(claims()) + "=",
    "white space": lambda: sign(claims()) + "\n",
    "other bits behind the signature": lambda: _with_loose_bits(sign(claims())),
    "too long": lambda: sign(claims(more="x" * 9_000)),
    "a refresh token": lambda: sign(claims(), typ="rt+jwt"),
    "a logout token": lambda: sign(claims(), typ="logout+jwt"),
    "a key id that is a number": lambda: sign(claims(), kid=7),
    "an endless key id": lambda: sign(claims(), kid="k" * 300),
}


def _with_loose_bits(text: str) -> str:
    """The same bytes for a careless reader: 256 bytes leave two bits of the last character unused."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


@pytest.mark.parametrize("case", ALGORITHMS)
def test_a08_a_token_with_a_forged_algorithm_or_signature_is_refused(case: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        check(ALGORITHMS[case]())
    assert refused.value.message == Unauthenticated().message


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"crit": None}, {"b64": True}, {"b64": False}])
def test_a10_an_extension_is_refused_before_anybody_looks_at_the_signature(header: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused, match="API key") as refused:
        take_apart(sign(claims(), **header))
    assert "extension" in refused.value.why


def test_a08_a_key_fits_only_its_own_algorithms() -> None:
    every = jwt_checks.ALGORITHMS
    wrong: list[tuple[PrivateKey, str, PrivateKey]] = [
        (ec_key(), "ES256", rsa_key()),
        (rsa_key(), "RS256", ec_key()),
        (rsa_key(), "RS256", ed_key()),
        (rsa_key(1024), "RS256", rsa_key(1024)),
        (ec.generate_private_key(ec.SECP384R1()), "ES384", ec_key()),
    ]
    for signer, algorithm, key in wrong:
        with pytest.raises(TokenRefused):
            check_signature(take_apart(_quietly(signer, algorithm)), key.public_key(), every)


def _quietly(key: PrivateKey, algorithm: str) -> str:
    return sign(claims(), key, algorithm)


CLAIMS: dict[str, Any] = {
    "another issuer": {"iss": "https://issuer.example/"},
    "no issuer": {"iss": ...},
    "an empty issuer": {"iss": ""},
    "a list of issuers": {"iss": [ISSUER]},
    "another audience": {"aud": "https://other.example"},
    "other audiences": {"aud": ["a", "b"]},
    "no audience": {"aud": ...},
    "an audience within a list within a list": {"aud": [[AUDIENCE]]},
    "an audience that is an object": {"aud": {AUDIENCE: True}},
    "the start of an audience": {"aud": AUDIENCE[:-1]},
    "endless audiences": {"aud": [AUDIENCE, *(["a"] * 200)]},
    "no subject": {"sub": ...},
    "a number for a subject": {"sub": 7},
    "a list for a subject": {"sub": ["alice"]},
    "an empty subject": {"sub": ""},
    "a path for a subject": {"sub": "../root"},
    "a line behind the subject": {"sub": "alice\n"},
    "letters that look alike": {"sub": "аlice"},
    "an endless subject": {"sub": "a" * 256},
    "expired": {"exp": NOW - 60},
    "no end": {"exp": ...},
    "an end that is a text": {"exp": str(int(NOW) + 600)},
    "an end that is null": {"exp": None},
    "an end that is true": {"exp": True},
    "an end without end": {"exp": 10**400},
    "an end in a thousand years": {"exp": NOW + 1e3 * 365 * 86_400},
    "an end before time": {"exp": -1},
    "a future start": {"nbf": NOW + 600},
    "a start that is a text": {"nbf": "0"},
    "a start that is null": {"nbf": None},
    "a start that is true": {"nbf": True},
    "issued in the future": {"iat": NOW + 600},
    "issued long ago": {"iat": 0},
    "issued at a text": {"iat": "now"},
    "bound to a key": {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a10_a_wrong_claim_is_refused(case: str) -> None:
    with pytest.raises(TokenRefused):
        check(sign(claims(**CLAIMS[case])))


TEXTS: dict[str, bytes] = {
    "a name twice": json.dumps(claims()).encode()[:-1] + b',"sub":"root"}',
    "a name twice, deep within": json.dumps(claims(x=1)).encode().replace(b'"x": 1', b'"x": {"y":1,"y":2}'),
    "infinity": json.dumps(claims(x=0)).encode().replace(b'"x": 0', b'"x": Infinity'),
    "no number": json.dumps(claims(x=0)).encode().replace(b'"x": 0', b'"x": NaN'),
    "a number beyond numbers": json.dumps(claims(x=0)).encode().replace(b'"x": 0', b'"x": 1e999'),
    "a list": b"[]",
    "no JSON": b"{",
    "not UTF-8": b'{"sub":"\xff"}',
    "nested without end": b'{"a":' + b"[" * 5_000,
}


@pytest.mark.parametrize("case", TEXTS)
def test_a10_a_payload_that_readers_differ_about_is_refused(case: str) -> None:
    with pytest.raises(TokenRefused):
        take_apart(sign(TEXTS[case]))


def test_a08_one_token_is_written_in_one_way() -> None:
    """Signatures differ by bits that no byte holds: what is remembered of one text must not hold for another."""
    for other in (_with_loose_bits(sign(claims())), sign(claims()) + "=", sign(claims()).replace(".", ". ")):
        with pytest.raises(TokenRefused, match="API key") as refused:
            take_apart(other)
        assert "base64url" in refused.value.why


def test_a10_a_name_twice_in_the_header_is_refused() -> None:
    head = part(b'{"alg":"none","alg":"RS256"}')
    with pytest.raises(TokenRefused):
        check(sign_raw(head, part(claims())))
