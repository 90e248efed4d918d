"""What the page on identity providers tells people to write is what their providers' tokens need."""

from __future__ import annotations

import re
import time
import tomllib
from typing import Any

import pytest

from atoll.limits import identity_providers
from atoll.services.identity.external import check_admitted
from atoll.services.identity.jwt_checks import TokenRefused, check_claims, take_apart
from atoll.services.identity.providers import Provider
from atoll.settings import Settings
from tests.docs.blocks import ROOT
from tests.services.identity.forging import ec_key, rsa_key, sign

PAGE = (ROOT / "docs" / "identity-providers.md").read_text()
BLOCKS = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def providers() -> dict[str, Provider]:
    """By name; of a name that stands twice, the one that has its own section."""
    found: dict[str, Provider] = {}
    for block in BLOCKS:
        found |= {one.name: one for one in identity_providers(Settings.model_validate(tomllib.loads(block)))}
    return found


# As each provider's documents describe its access tokens: the header's type and algorithm, and the claims.
TOKENS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "auth0": (
        {"typ": "at+jwt"},
        {
            "iss": "https://example.eu.auth0.com/",
            "sub": "google-oauth2|1081157",
            "aud": ["https://atoll.example.com", "https://example.eu.auth0.com/userinfo"],
            "azp": "yD1PNhUHPlzE",
            "scope": "openid profile email",
            "permissions": [],
        },
    ),
    "clerk": (
        {"cat": "cl_B7d4PD222AAA"},
        {
            "iss": "https://clerk.example.com",
            "sub": "user_2abcDEF",
            "aud": "https://atoll.example.com",
            "azp": "https://app.example.com",
            "name": "Ann Example",
        },
    ),
    "supabase": (
        {},
        {
            "iss": "https://abcdefghijklmnop.supabase.co/auth/v1",
            "sub": "8ccaa7af-909f-44e7-84cb-67cdccb56be6",
            "aud": "authenticated",
            "role": "authenticated",
            "aal": "aal1",
            "session_id": "9d3f7f0c",
            "is_anonymous": False,
        },
    ),
    "keycloak": (
        {},
        {
            "iss": "https://keycloak.example.com/realms/main",
            "sub": "f:5a1b:ann",
            "aud": ["atoll", "account"],
            "azp": "console",
            "typ": "Bearer",
            "scope": "openid profile atoll",
            "preferred_username": "ann",
        },
    ),
}


def test_the_page_has_each_of_them() -> None:
    assert providers().keys() >= TOKENS.keys()
    assert all(f"## {name}" in PAGE for name in ("Auth0", "Clerk", "Supabase", "Keycloak", "Any other"))


@pytest.mark.parametrize("name", TOKENS)
def test_the_settings_of_the_page_take_the_tokens_of_the_provider_and_no_others(name: str) -> None:
    provider = providers()[name]
    header, said = TOKENS[name]
    now = int(time.time())
    claims = said | {"iat": now, "exp": now + 300}
    algorithm, key = ("ES256", ec_key()) if "ES256" in provider.algorithms else ("RS256", rsa_key())

    def check(changed: dict[str, Any]) -> str:
        token = take_apart(sign(claims | changed, key, algorithm, **header))
        verified = check_claims(token, provider.rules, now)
        check_admitted(verified.claims, provider)
        return verified.subject

    assert check({}) == said["sub"]
    assert isinstance(claims.get(provider.name_claim, ""), str)
    wrong: list[dict[str, Any]] = [{"iss": said["iss"] + "/"}, {"iss": said["iss"].rstrip("/") + "x"}, {"aud": "other"}]
    wrong += [{"azp": "https://evil.example"}] if provider.clients else []
    for changed in wrong:
        with pytest.raises(TokenRefused):
            check(changed)


def test_every_field_of_a_provider_is_on_the_page() -> None:
    from atoll.settings.identity import ProviderSettings

    for name in ProviderSettings.model_fields:
        assert f"| `{name}` |" in PAGE, name
