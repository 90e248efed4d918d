"""PyJWT's published advisories, and those like them of other libraries, tried on a server's own access tokens.

Each test is named after its advisory and does what that one did; docs of the CVE say more.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from atoll.domain.errors import Unauthenticated
from atoll.services.identity import signing_keys
from atoll.services.identity.jwt_checks import TokenRefused, check_signature, fits, take_apart
from atoll.services.identity.signing_keys import RS256
from tests.services.identity.forging import ec_key, ed_key, part, rsa_key, sign, sign_raw, sign_with_secret
from tests.services.identity.logged_in import Pair, Server, forged


class Target:
    """A server, a token of a user's that it takes, and the public key that everybody knows."""

    def __init__(self, server: Server, genuine: str, public: Ed25519PublicKey | RSAPublicKey) -> None:
        self.server, self.genuine, self.public = server, genuine, public
        self.header: dict[str, Any] = jwt.get_unverified_header(genuine)
        self.claims: dict[str, Any] = jwt.decode(genuine, options={"verify_signature": False})

    def with_secret(self, secret: bytes) -> str:
        return sign_with_secret(self.claims, secret, kid=self.header["kid"], typ="at+jwt")

    async def refuses(self, text: str) -> bool:
        assert (await self.server.tokens.authenticate(self.genuine)).id == self.claims["sub"]
        try:
            await self.server.tokens.authenticate(text)
        except Unauthenticated:
            return True
        return False


_generated = cache(signing_keys._generate)  # pyright: ignore[reportPrivateUsage]  # large ones take a second each


@pytest.fixture(params=["EdDSA", RS256])
async def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setattr(signing_keys, "_generate", _generated)
    server = Pair().server(algorithm=request.param)
    await server.user()
    genuine = (await server.login()).access.text
    _, private = await server.signing_keys.signer()
    return Target(server, genuine, private.public_key())


async def test_cve_2015_9235_alg_none(target: Target) -> None:
    claims = target.genuine.split(".")[1]
    for name in ("none", "None", "NONE", "nOnE", ""):
        head = part(target.header | {"alg": name})
        for signature in ("", "AA", target.genuine.rpartition(".")[2]):
            assert await target.refuses(f"{head}.{claims}.{signature}")


async def test_cve_2017_11424_a_public_key_in_any_pem_form_is_no_hmac_secret(target: Target) -> None:
    forms = [PublicFormat.SubjectPublicKeyInfo]
    if isinstance(target.public, RSAPublicKey):
        forms.append(PublicFormat.PKCS1)  # the one that was not on the list
    for form in forms:
        pem = target.public.public_bytes(Encoding.PEM, form)
        for secret in (pem, pem.strip(), pem + b"\n", pem.replace(b"\n", b"\r\n")):
            assert await target.refuses(target.with_secret(secret))


async def test_cve_2022_29217_a_public_key_in_ssh_s_form_is_no_hmac_secret(target: Target) -> None:
    ssh = target.public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    for secret in (ssh, ssh + b"\n", ssh + b" user@host", ssh.split()[1]):
        assert await target.refuses(target.with_secret(secret))


async def test_cve_2026_48526_a_public_key_as_a_jwk_is_no_hmac_secret(target: Target) -> None:
    (key,) = (await target.server.signing_keys.jwks())["keys"]
    for secret in (json.dumps(key), json.dumps(key, separators=(",", ":")), json.dumps({"keys": [key]})):
        assert await target.refuses(target.with_secret(secret.encode()))
    raw = base64.urlsafe_b64decode(key.get("n", key.get("x")) + "==")
    assert await target.refuses(target.with_secret(raw))


async def test_ghsa_jq35_7prp_9v3f_the_header_does_not_choose_among_algorithms(target: Target) -> None:
    claims = target.genuine.split(".")[1]
    for algorithm, key in (("RS256", rsa_key()), ("RS512", rsa_key()), ("ES256", ec_key()), ("EdDSA", ed_key())):
        head = part(target.header | {"alg": algorithm})
        assert await target.refuses(sign_raw(head, claims, key, algorithm))
        assert await target.refuses(f"{head}.{claims}.{target.genuine.rpartition('.')[2]}") or (
            algorithm == target.header["alg"]
        )


async def test_cve_2024_53861_a_part_of_the_issuer_is_not_the_issuer(target: Target) -> None:
    for issuer in (
        "",
        "a",
        "toll",
        "atol",
        "atolll",
        "ATOLL",
        "atoll/",
        " atoll",
        ["atoll"],
        {"atoll": 1},
        ["a", "atoll"],
    ):
        assert await target.refuses(await forged(target.server, target.genuine, iss=issuer))


async def test_cve_2025_45768_weak_keys_verify_nothing(target: Target) -> None:
    weak = rsa_key(1024)
    token = take_apart(sign(target.claims, weak, "RS256"))
    assert not fits(weak.public_key(), "RS256")
    with pytest.raises(TokenRefused):
        check_signature(token, weak.public_key(), {"RS256"})
    if isinstance(target.public, RSAPublicKey):
        assert target.public.key_size >= 3072


async def test_cve_2026_32597_an_unknown_crit_is_refused(target: Target) -> None:
    for header in (
        {"crit": ["x-custom"], "x-custom": "must be understood"},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": "b64"},
        {"crit": None},
    ):
        assert await target.refuses(await forged(target.server, target.genuine, header))


async def test_ghsa_993g_76c3_p5m4_no_address_in_a_header_is_fetched(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("a header made the server open something")

    monkeypatch.setattr("socket.getaddrinfo", opened)
    monkeypatch.setattr("urllib.request.urlopen", opened)
    claims = target.genuine.split(".")[1]
    for name in ("jku", "x5u"):
        for url in (
            "file:///etc/passwd",
            "ftp://127.0.0.1/",
            "data:,{}",
            "http://169.254.169.254/",
            "https://x.example/",
        ):
            head = part(target.header | {name: url, "kid": "theirs"})
            assert await target.refuses(sign_raw(head, claims, ed_key(), "EdDSA"))


async def test_cve_2018_0114_a_key_in_the_header_proves_nothing(target: Target) -> None:
    jwk = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(ed_key().public_key()))
    claims = target.genuine.split(".")[1]
    for header in (
        {"jwk": jwk},
        {"jwk": jwk, "kid": "theirs"},
        {"x5c": ["MIIB"], "kid": "theirs"},
        {"jwk": jwk, "kid": ...},
    ):
        head = {key: value for key, value in (target.header | {"alg": "EdDSA"} | header).items() if value is not ...}
        assert await target.refuses(sign_raw(part(head), claims, ed_key(), "EdDSA"))


async def test_ghsa_fhv5_28vv_h8m8_unknown_key_ids_do_not_make_a_look_each(target: Target) -> None:
    began, looks, real = time.monotonic(), 0, target.server.signing_keys._records.list_signing_keys  # pyright: ignore

    async def counted() -> Any:
        nonlocal looks
        looks += 1
        return await real()

    target.server.signing_keys._monotonic = time.monotonic  # pyright: ignore
    target.server.signing_keys._records.list_signing_keys = counted  # type: ignore[method-assign] # pyright: ignore
    for number in range(5):
        head = part(target.header | {"kid": f"sig_{number}"})
        assert await target.refuses(f"{head}.{'.'.join(target.genuine.split('.')[1:])}")
    assert looks <= 2 + (time.monotonic() - began) / 0.2


async def test_pysec_2026_178_a_detached_payload_is_refused_before_any_work(target: Target) -> None:
    head, claims, signature = target.genuine.split(".")
    for header in ({"b64": False}, {"b64": True}, {"b64": False, "crit": ["b64"]}):
        assert await target.refuses(f"{part(target.header | header)}.{claims}.{signature}")
    assert await target.refuses(f"{head}..{signature}")
    assert await target.refuses(f"{head}.{'A' * 10_000_000}.{signature}")


async def test_cve_2024_33664_nothing_is_decompressed(target: Target) -> None:
    bomb = zlib.compress(json.dumps(target.claims).encode() + b" " * 10_000_000)[2:-4]
    _, private = await target.server.signing_keys.signer()
    for header in ({"zip": "DEF"}, {"zip": "DEF", "enc": "A256GCM"}):
        head = part(target.header | header)
        assert await target.refuses(sign_raw(head, part(bomb), private, target.header["alg"]))


async def test_cve_2022_21449_a_signature_of_zeros_is_none(target: Target) -> None:
    head, claims, signature = target.genuine.split(".")
    size = len(base64.urlsafe_b64decode(signature + "=="))
    for zeros in (b"\0" * size, b"\0" * 64, b"\0", b"\x01" + b"\0" * (size - 1)):
        assert await target.refuses(f"{head}.{claims}.{part(zeros)}")
