"""Targets that parse credentials, what identity providers publish, and the URLs that others give: see `targets`.

Each is what it runs, its corpus of valid inputs, and how it refuses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from atoll.domain.errors import InvalidInput
from atoll.services.identity.jwt_checks import Rules, TokenRefused, check_claims, check_signature, take_apart
from atoll.services.identity.verification_keys import from_key_set, from_pem
from atoll.services.outbound_url import call_url
from tests.services.identity.forging import AUDIENCE, ISSUER, claims, ec_key, ed_key, part, pem, rsa_key, sign
from tests.services.identity.provider_stand_in import jwk

Parts = tuple[Callable[[bytes], object], Callable[[], list[bytes]], tuple[type[Exception], ...]]
RULES = Rules(ISSUER, frozenset({AUDIENCE}))
EVERY = ("RS256", "ES256", "EdDSA")


def _token(data: bytes) -> None:
    """A whole credential, as the door has it."""
    token = take_apart(data.decode("latin-1"))
    check_signature(token, rsa_key().public_key(), {"RS256"})
    check_claims(token, RULES, time.time())


def _payload(data: bytes) -> None:
    """Claims that somebody signed."""
    token = take_apart(f"{part({'alg': 'RS256'})}.{part(data or b' ')}.AAAA")
    verified = check_claims(token, RULES, time.time())
    assert verified.subject and verified.expires_at_s > 0


def _header(data: bytes) -> None:
    token = take_apart(f"{part(data or b' ')}.{part(claims())}.AAAA")
    assert token.algorithm not in ("", "none", "HS256")


def _key_set(data: bytes) -> None:
    assert all(key.algorithms <= set(EVERY) for key in from_key_set(data, EVERY))


def _pem(data: bytes) -> None:
    assert from_pem(data.decode("latin-1"), EVERY)


def _url(data: bytes) -> None:
    url = call_url(data.decode("latin-1"))
    assert "@" not in url.host and " " not in url.target and 0 < url.port < 65_536
    assert call_url(f"{url.scheme}://{url.authority}{url.target}") == url


def _key_sets() -> list[bytes]:
    keys = [jwk(rsa_key(), "a"), jwk(ec_key(), "b", alg="ES256"), jwk(ed_key(), None)]
    return [json.dumps({"keys": keys}).encode(), json.dumps({"keys": keys[1:]}).encode()]


IDENTITY: dict[str, Parts] = {
    "tokens": (
        _token,
        lambda: [sign(claims(), kid="a").encode(), sign(claims(aud=[AUDIENCE])).encode()],
        (TokenRefused,),
    ),
    "claims": (_payload, lambda: [json.dumps(claims(nbf=1, azp="a")).encode()], (TokenRefused,)),
    "headers": (_header, lambda: [b'{"alg":"RS256","kid":"a","typ":"at+jwt"}'], (TokenRefused,)),
    "jwks": (_key_set, _key_sets, (ValueError,)),
    "pem": (_pem, lambda: [pem(rsa_key()), pem(ec_key()) + pem(ed_key())], (ValueError,)),
    "urls": (
        _url,
        lambda: [b"https://a.example:8443/x?y=z", b"http://127.0.0.1/", b"https://[2606:4700::1]/"],
        (InvalidInput,),
    ),
}
