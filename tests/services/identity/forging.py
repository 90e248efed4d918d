"""Tokens of every kind for tests: keys of each sort, and a signer that writes whatever it is told, however wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://issuer.example"
AUDIENCE = "https://atoll.example/api"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """Another for each number; making one takes a moment."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**changed: Any) -> dict[str, Any]:
    """Good ones, and what a test changes in them; `...` takes a claim away."""
    now = int(time.time())
    good: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "auth0|alice", "iat": now, "exp": now + 600}
    return {name: value for name, value in (good | changed).items() if value is not ...}


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(payload: Any, key: PrivateKey | None = None, algorithm: str = "RS256", **header: Any) -> str:
    """A token over any payload, bytes too; `header` may say another algorithm than the one that signs."""
    head = {name: value for name, value in ({"alg": algorithm, "typ": "JWT"} | header).items() if value is not ...}
    return sign_raw(part(head), part(payload), key, algorithm)


def sign_raw(head: str, payload: str, key: PrivateKey | None = None, algorithm: str = "RS256") -> str:
    signing = f"{head}.{payload}".encode()
    signer = jwt.get_algorithm_by_name(algorithm)
    return f"{head}.{payload}.{part(signer.sign(signing, key or rsa_key()))}"


def sign_with_secret(payload: Any, secret: bytes, **header: Any) -> str:
    """HS256, with any bytes for a secret: the text of a public key too."""
    head, body = part({"alg": "HS256", "typ": "JWT"} | header), part(payload)
    return f"{head}.{body}.{part(hmac.digest(secret, f'{head}.{body}'.encode(), hashlib.sha256))}"
