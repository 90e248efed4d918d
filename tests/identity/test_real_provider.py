"""A server that takes the tokens of a real, certified OpenID provider: logins, rotation, outage, and forgeries."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from atoll.app import Application, create_app
from atoll.serve import listening
from atoll.services.identity import published_keys
from atoll.settings import Settings
from tests.identity.real_provider import AUDIENCE, RealProvider, provider, running
from tests.services.identity.forging import part, rsa_key, sign, sign_with_secret

__all__ = ["provider"]
pytestmark = pytest.mark.timeout(240)  # the first may have to install it


class Server:
    """One that knows the provider."""

    def __init__(self, app: Application, http: httpx2.AsyncClient) -> None:
        self.app = app
        self.http = http

    async def call(self, token: str, method: str = "GET", path: str = "/v1/sessions", **more: Any) -> httpx2.Response:
        return await self.http.request(method, path, headers={"authorization": f"Bearer {token}"}, **more)

    async def status(self, token: str) -> int:
        return (await self.call(token)).status_code


@asynccontextmanager
async def serving(data: Path, *issuers: str, **changed: Any) -> AsyncGenerator[Server]:
    entries = [
        {"name": f"test-{number}", "issuer": issuer, "audience": [AUDIENCE, "https://short.example"], "skew_s": 0}
        | changed
        for number, issuer in enumerate(issuers)
    ]
    tree = {
        "data": data,
        "runtime": "fake",
        "server": {"port": 0, "drain_s": 1},
        "identity": {"providers": entries, "refresh_s": 10},
        "rates": {"refused_burst": 1_000},
    }
    app = create_app(Settings.model_validate(tree))
    async with app.running(), listening(app) as url, httpx2.AsyncClient(base_url=url) as http:
        yield Server(app, http)


async def test_a_person_logs_in_at_the_provider_and_is_the_same_user_ever_after(
    provider: RealProvider, tmp_path: Path
) -> None:
    async with serving(tmp_path, provider.issuer) as server:
        first = provider.login("alice")
        made = await server.call(first["access_token"], "POST", json={"image": "host"})
        assert made.status_code == 201, made.text
        own = made.json()["id"]
        again = provider.login("alice")
        refreshed = provider.exchange(
            {"grant_type": "refresh_token", "refresh_token": again["refresh_token"], "client_id": "console"}
        )
        for token in (again["access_token"], refreshed["access_token"]):
            assert (await server.call(token, path=f"/v1/sessions/{own}")).status_code == 200
        bob = provider.login("bob")["access_token"]
        assert (await server.call(bob, path=f"/v1/sessions/{own}")).status_code == 404
        users = await server.app.records.list_users()
        assert sorted((user.issuer, user.subject) for user in users) == [
            (provider.issuer, "alice"),
            (provider.issuer, "bob"),
        ]


async def test_a_program_comes_with_its_own_credentials(provider: RealProvider, tmp_path: Path) -> None:
    async with serving(tmp_path, provider.issuer, clients=["service"]) as server:
        assert await server.status(provider.token("service")) == 200
        assert await server.status(provider.token("other-service")) == 401


async def test_a10_tokens_for_others_of_others_and_of_yesterday_are_refused(
    provider: RealProvider, tmp_path: Path
) -> None:
    short = provider.token(audience="https://short.example")
    with running() as other:
        async with serving(tmp_path, provider.issuer) as server:
            assert await server.status(provider.token(audience="https://other.example/api")) == 401
            assert await server.status(provider.token(audience=AUDIENCE + "/")) == 401
            assert await server.status(other.token()) == 401
            await asyncio.sleep(1.5)
            assert await server.status(short) == 401
            fresh = provider.token(audience="https://short.example")
            assert await server.status(fresh) == 200


async def test_a11_only_access_tokens_are_credentials(provider: RealProvider, tmp_path: Path) -> None:
    tokens = provider.login("carol")
    async with serving(tmp_path, provider.issuer, audience=[AUDIENCE]) as server:
        assert await server.status(tokens["access_token"]) == 200
        assert await server.status(tokens["refresh_token"]) == 401
        assert await server.status(tokens["id_token"]) == 401


async def test_a_new_key_of_the_provider_is_found_and_an_old_one_is_dropped(
    provider: RealProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_keys, "LOOK_AGAIN_S", 0.0)
    async with serving(tmp_path, provider.issuer) as server:
        old = provider.token()
        assert await server.status(old) == 200
        provider.rotate()
        assert await server.status(provider.token()) == 200
        await asyncio.sleep(2.1)  # as long as a token is believed that was checked
        assert await server.status(old) == 401


async def test_an_outage_of_the_provider_keeps_nobody_out_who_has_a_token(tmp_path: Path) -> None:
    with running() as own:
        tokens = [own.token(), own.token()]
        async with serving(tmp_path, own.issuer) as server:
            assert await server.status(tokens[0]) == 200
            own.stop()
            assert await server.status(tokens[1]) == 200
            assert 'identity_provider_up{provider="test-0"} 1.0' in (await server.http.get("/metrics")).text
        # A server that never met it cannot tell; it does start, and keys go on to work.
        async with serving(tmp_path, own.issuer) as server:
            assert await server.status(tokens[1]) == 503
            assert 'identity_provider_up{provider="test-0"} 0.0' in (await server.http.get("/metrics")).text
            assert server.app.owner_key is not None
            assert await server.status(server.app.owner_key.text) == 200


async def test_a08_no_forgery_with_what_the_provider_publishes_passes(provider: RealProvider, tmp_path: Path) -> None:
    token = provider.token()
    published = provider.keys()[0]
    key = jwt.PyJWK(published).key
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    kid = published["kid"]
    mine = rsa_key(2048, 7)
    forged = {
        "none": f"{part({'alg': 'none', 'kid': kid})}.{payload}.",
        "none, with the signature": f"{part({'alg': 'none', 'kid': kid})}.{payload}.{signature}",
        "no signature": f"{head}.{payload}.",
        "another subject": f"{head}.{part(claims | {'sub': 'root'})}.{signature}",
        "HS256 with the PEM": sign_with_secret(claims, pem, kid=kid),
        "HS256 with the DER": sign_with_secret(claims, der, kid=kid),
        "HS256 with the modulus": sign_with_secret(claims, published["n"].encode(), kid=kid),
        "another key": sign(claims, mine, kid=kid),
        "another key, brought along": sign(claims, mine, kid=kid, jwk={**published, "n": "AQAB"}),
        "another key id": f"{part({'alg': 'RS256', 'kid': 'other'})}.{payload}.{signature}",
        "a path for a key id": sign(claims, mine, kid="/dev/null"),
        "another hash": f"{part({'alg': 'RS512', 'kid': kid})}.{payload}.{signature}",
        "elliptic": f"{part({'alg': 'ES256', 'kid': kid})}.{payload}.{signature}",
    }
    async with serving(tmp_path, provider.issuer) as server:
        assert await server.status(token) == 200
        assert {name: await server.status(text) for name, text in forged.items()} == dict.fromkeys(forged, 401)
