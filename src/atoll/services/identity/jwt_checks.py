"""Checks of JSON web tokens (RFC 7515, 7519, 8725): their form, their signature, their claims.

Our own tokens and those of other issuers are checked here and nowhere else; who calls it has chosen the keys already.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from atoll.domain.errors import Unauthenticated

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

# Public keys only: a shared secret would let everybody who checks a token make one.
RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
EC_CURVES = {"ES256": SECP256R1, "ES384": SECP384R1, "ES512": SECP521R1}
ALGORITHMS = RSA_ALGORITHMS | EC_CURVES.keys() | {"EdDSA"}

TOKEN_CHARS_MAX = 8_192
KEY_ID_CHARS_MAX = 256
AUDIENCES_MAX = 100
RSA_BITS = range(2_048, 8_193)
LIFETIME_S_MAX = 366 * 86_400.0  # further off is no time that an issuer meant
ACCESS_TYPES = frozenset({"", "jwt", "at+jwt"})  # RFC 9068; what has another type was made for another purpose
SUBJECT = re.compile(r"[A-Za-z0-9_|.@:-]{1,255}")
_PART = re.compile(r"[A-Za-z0-9_-]+")


class TokenRefused(Unauthenticated):
    """A valid API key is required: Authorization: Bearer <key>."""

    def __init__(self, why: str) -> None:
        self.why = why  # for the log of whoever runs the server; the one who asks is not told
        super().__init__()


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart. Nothing in it is proved: not even that its issuer wrote it."""

    text: str
    algorithm: str
    key_id: str | None
    type: str  # in small letters, without `application/`
    claims: Mapping[str, Any]

    @property
    def issuer(self) -> str:
        """Who it says it is from; empty where it does not."""
        issuer = self.claims.get("iss")
        return issuer if isinstance(issuer, str) else ""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the claims of a token must be."""

    issuer: str
    audiences: frozenset[str]  # one of them must be the token's, or among the token's
    types: frozenset[str] = ACCESS_TYPES
    skew_s: float = 30.0  # that the issuer's clock may differ from ours
    lifetime_s_max: float = LIFETIME_S_MAX
    subject_claim: str = "sub"


@dataclass(frozen=True, slots=True)
class Verified:
    """What one may believe of a token that passed."""

    subject: str
    expires_at_s: float  # since 1970, the skew not counted in
    claims: Mapping[str, Any]


def looks_like_token(text: str) -> bool:
    """Whether a text has a token's three parts, the first of them that of a JSON object."""
    return text.startswith("ey") and text.count(".") == 2


def take_apart(text: str) -> Token:
    """The parts of a token. TokenRefused for what is not exactly one signed JWT in its compact form."""
    if len(text) > TOKEN_CHARS_MAX:
        raise TokenRefused("it is too long")
    parts = text.split(".")
    if len(parts) != 3:
        raise TokenRefused("it does not have three parts")
    header, claims, _ = _object(_bytes(parts[0])), _object(_bytes(parts[1])), _bytes(parts[2])
    if "crit" in header or "b64" in header:
        raise TokenRefused("its header asks for an extension")  # none is known here, and RFC 7515 has us refuse it then
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRefused("its algorithm is none of those with public keys")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= KEY_ID_CHARS_MAX):
        raise TokenRefused("its key id is no text")
    if not isinstance(kind, str):
        raise TokenRefused("its type is no text")
    return Token(text, algorithm, key_id, kind.lower().removeprefix("application/"), claims)


def fits(key: PublicKey, algorithm: str) -> bool:
    """Whether a key is of the kind, and strong enough, for an algorithm."""
    if algorithm in RSA_ALGORITHMS:
        return isinstance(key, RSAPublicKey) and key.key_size in RSA_BITS
    if algorithm in EC_CURVES:
        return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, EC_CURVES[algorithm])
    return algorithm == "EdDSA" and isinstance(key, Ed25519PublicKey)


def check_signature(token: Token, key: PublicKey, algorithms: Collection[str]) -> None:
    """TokenRefused unless the key made the signature, with one of the algorithms that the caller has for that key."""
    if token.algorithm not in algorithms or not fits(key, token.algorithm):
        raise TokenRefused(f"its algorithm {token.algorithm} is not its key's")
    try:
        jwt.PyJWS(algorithms=[token.algorithm]).decode(token.text, key, algorithms=[token.algorithm])
    except jwt.PyJWTError as error:
        raise TokenRefused("its signature is not its key's") from error


def check_claims(token: Token, rules: Rules, now_s: float) -> Verified:
    """The subject and end of a token whose signature is proved. TokenRefused names the first claim that is wrong."""
    claims = token.claims
    if token.type not in rules.types:
        raise TokenRefused(f"its type {token.type[:40]!r} is for another purpose")
    if claims.get("iss") != rules.issuer or not rules.issuer:
        raise TokenRefused("iss is another issuer")
    if rules.audiences.isdisjoint(_audiences(claims.get("aud"))):
        raise TokenRefused("aud is another audience")
    if "cnf" in claims:
        raise TokenRefused("cnf binds it to a key, which a Bearer credential does not prove")
    subject = claims.get(rules.subject_claim)
    if not isinstance(subject, str) or not SUBJECT.fullmatch(subject):
        raise TokenRefused(f"{rules.subject_claim} is not 1 to 255 of A-Z a-z 0-9 _ | . @ : -")
    return Verified(subject, _check_times(claims, rules, now_s), claims)


def _check_times(claims: Mapping[str, Any], rules: Rules, now_s: float) -> float:
    expires_at_s = _time(claims, "exp")
    if expires_at_s is None:
        raise TokenRefused("exp is missing")
    if now_s >= expires_at_s + rules.skew_s:
        raise TokenRefused("it has expired")
    if expires_at_s > now_s + rules.lifetime_s_max:
        raise TokenRefused("exp is too far off")
    begins_at_s, issued_at_s = _time(claims, "nbf"), _time(claims, "iat")
    if begins_at_s is not None and begins_at_s > now_s + rules.skew_s:
        raise TokenRefused("it is not valid yet")
    if issued_at_s is not None and not now_s - rules.lifetime_s_max <= issued_at_s <= now_s + rules.skew_s:
        raise TokenRefused("iat is in the future, or too long ago")
    return expires_at_s


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Seconds since 1970; None when the claim is missing, which null is not."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise TokenRefused(f"{name} is no time")
    return float(value)


def _audiences(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    listed = cast(list[Any], value) if isinstance(value, list) else []
    if len(listed) > AUDIENCES_MAX or not all(isinstance(one, str) for one in listed):
        raise TokenRefused("aud is no list of texts")
    return listed


def _bytes(part: str) -> bytes:
    """Base64url as it is written by everybody: no padding, no other text for the same bytes."""
    if not _PART.fullmatch(part):
        raise TokenRefused("a part is not base64url")
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError) as error:
        raise TokenRefused("a part is not base64url") from error
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode():
        raise TokenRefused("a part is not base64url")
    return data


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise TokenRefused("a part is not JSON, or says something twice") from error
    if not isinstance(value, dict):
        raise TokenRefused("a part is no JSON object")
    return cast(dict[str, Any], value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ about which of two equal names counts: none does here."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
