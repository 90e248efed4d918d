"""Keys of providers: what is usable in a key set or a PEM text, and that everything else is left out or refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from atoll.services.identity.verification_keys import KEYS_MAX, VerificationKey, from_key_set, from_pem
from tests.services.identity.forging import PrivateKey, ec_key, ed_key, pem, rsa_key
from tests.services.identity.provider_stand_in import jwk

EVERY = ("RS256", "PS256", "ES256", "EdDSA")


def read(*entries: Any, pinned: tuple[str, ...] = EVERY) -> list[VerificationKey]:
    return from_key_set(json.dumps({"keys": entries}).encode(), pinned)


def test_each_kind_of_key_is_for_its_own_algorithms_among_the_pinned_ones() -> None:
    found = read(jwk(rsa_key(), "r"), jwk(ec_key(), "e"), jwk(ed_key(), "o"))
    assert [(key.id, sorted(key.algorithms)) for key in found] == [
        ("r", ["PS256", "RS256"]),
        ("e", ["ES256"]),
        ("o", ["EdDSA"]),
    ]
    assert [key.id for key in read(jwk(rsa_key(), "r"), jwk(ec_key(), "e"), pinned=("ES256",))] == ["e"]


def test_a_key_that_says_its_algorithm_is_for_no_other() -> None:
    assert [key.algorithms for key in read(jwk(rsa_key(), "r", alg="RS256"))] == [{"RS256"}]
    assert read(jwk(rsa_key(), "r", alg="RS256"), pinned=("PS256",)) == []


LEFT_OUT: dict[str, Any] = {
    "for encryption": jwk(rsa_key(), "a", use="enc"),
    "for signing only": jwk(rsa_key(), "a", key_ops=["sign"]),
    "a shared secret": {"kty": "oct", "kid": "a", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"},
    "too short": jwk(rsa_key(1024), "a"),
    "of a curve that nobody pinned": jwk(ec.generate_private_key(ec.SECP384R1()), "a"),
    "with an algorithm of another kind": jwk(rsa_key(), "a", alg="ES256"),
    "with an algorithm that nobody knows": jwk(rsa_key(), "a", alg="RS1"),
    "with a secret's algorithm": jwk(rsa_key(), "a", alg="HS256"),
    "with its private half": jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key(), as_dict=True),
    "with half a private half": jwk(rsa_key(), "a", d="AQAB"),
    "of a kind that nobody knows": {"kty": "new", "kid": "a"},
    "of no kind": {"kid": "a"},
    "not on its curve": jwk(ec_key(), "a", x="A" * 43),
    "half": jwk(ec_key(), "a", y=...),
    "with odd numbers": jwk(rsa_key(), "a", n=7),
    "with an odd id": jwk(rsa_key(), "a", kid=[1]),
    "no object": "key",
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_a_key_that_is_of_no_use_is_left_out_and_the_others_stay(case: str) -> None:
    assert [key.id for key in read(LEFT_OUT[case], jwk(ed_key(), "good"))] == ["good"]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b"[" * 90_000, json.dumps({"keys": [1] * 101}).encode()]
)
def test_what_is_no_key_set_is_refused(body: bytes) -> None:
    assert KEYS_MAX == 100
    with pytest.raises(ValueError):
        from_key_set(body, EVERY)


def certificate(key: PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tenant.example")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


def test_a_pem_text_may_hold_keys_and_certificates_in_one_line_too() -> None:
    both = (pem(rsa_key()) + certificate(rsa_key(2048, 1))).decode()
    for text in (both, both.replace("\n", "\\n"), "a comment\n" + both):
        assert [key.key for key in from_pem(text, ["RS256"])] == [
            rsa_key().public_key(),
            rsa_key(2048, 1).public_key(),
        ]


def test_a12_a_pem_text_that_is_of_no_use_says_why_and_never_what_it_is() -> None:
    private = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    odd = ed448.Ed448PrivateKey.generate().public_key()
    cases = {
        "": "no PEM",
        "secret": "no PEM",
        "-----BEGIN PUBLIC KEY-----\nsecret\n-----END PUBLIC KEY-----": "no public key",
        "-----BEGIN PUBLIC KEY-----\nsecret": "no PEM",
        private.decode(): "private key",
        pem(rsa_key(1024)).decode(): "2048 bits",
        pem(ec_key()).decode(): "ES256",
        odd.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(): "none of ours",
    }
    for text, why in cases.items():
        with pytest.raises(ValueError, match=why) as refused:
            from_pem(text, ["RS256"])
        assert "secret" not in str(refused.value)
