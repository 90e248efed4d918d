"""Verification keys: public keys out of what an identity provider publishes (RFC 7517), or an operator pasted.

The key sources make them; what cannot prove a signature here, is not among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from atoll.services.identity.jwt_checks import ALGORITHMS, KEY_ID_CHARS_MAX, PublicKey, fits

KEYS_MAX = 100  # of one provider
_BEGIN, _END = "-----BEGIN ", "-----END "


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key, and the algorithms that it may be used with."""

    id: str | None
    key: PublicKey
    algorithms: frozenset[str]


def from_key_set(body: bytes, pinned: Iterable[str]) -> list[VerificationKey]:
    """The keys of a JWK set that fit a pinned algorithm. ValueError when it is none; what is odd in it is left out."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    listed = cast(dict[str, Any], document).get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("has no list of keys")
    entries = cast(list[Any], listed)
    if len(entries) > KEYS_MAX:
        raise ValueError(f"has more than {KEYS_MAX} keys")
    found = [_from_jwk(cast(dict[str, Any], entry), pinned) for entry in entries if isinstance(entry, dict)]
    return [key for key in found if key is not None]


def _from_jwk(entry: dict[str, Any], pinned: Iterable[str]) -> VerificationKey | None:
    purposes, key_id = entry.get("key_ops", ["verify"]), entry.get("kid")
    if entry.get("use", "sig") != "sig" or not isinstance(purposes, list) or "verify" not in purposes:
        return None
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= KEY_ID_CHARS_MAX):
        return None
    try:
        key = jwt.PyJWK(entry).key
    except (jwt.PyJWTError, KeyError, TypeError, ValueError, AttributeError, UnsupportedAlgorithm):
        return None
    named = entry.get("alg")
    return _usable(key, key_id, [one for one in pinned if named is None or named == one])


def _usable(key: object, key_id: str | None, algorithms: Iterable[str]) -> VerificationKey | None:
    # Nor a private key: where one was published, everybody can sign with it.
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        return None
    fitting = frozenset(one for one in algorithms if fits(key, one))
    return VerificationKey(key_id, key, fitting) if fitting else None


def from_pem(text: str, pinned: Iterable[str]) -> list[VerificationKey]:
    """Public keys or certificates, one behind the other. ValueError, which never repeats them, when one is unusable."""
    text = text.replace("\\n", "\n")  # as environments without lines have it
    blocks = [_BEGIN + block for block in text.split(_BEGIN)[1:]]
    if not blocks or _END not in text:
        raise ValueError("is no PEM: it begins with -----BEGIN PUBLIC KEY-----")
    found: list[VerificationKey] = []
    for block in blocks:
        if "PRIVATE KEY" in block.partition("\n")[0]:
            raise ValueError("is a private key: it belongs to the issuer alone; give the public one")
        try:
            key = (
                x509.load_pem_x509_certificate(block.encode()).public_key()
                if block.startswith(_BEGIN + "CERTIFICATE")
                else load_pem_public_key(block.encode())
            )
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("is no public key in PEM") from None
        usable = _usable(key, None, pinned)
        if usable is None:
            offered = ", ".join(one for one in sorted(ALGORITHMS) if _fits_any(key, one)) or "none of ours"
            raise ValueError(f"does not fit {', '.join(pinned)}: it is for {offered} (RSA needs 2048 bits)")
        found.append(usable)
    return found


def _fits_any(key: object, algorithm: str) -> bool:
    return isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey) and fits(key, algorithm)
