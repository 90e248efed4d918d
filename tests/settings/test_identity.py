"""The settings of identity providers: the seeds' three names, the list, and what no server starts with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from atoll.limits import identity_providers
from atoll.services.identity import jwt_checks
from atoll.settings import SettingsError, load
from atoll.settings.identity import ALGORITHMS
from tests.services.identity.forging import ec_key, pem, rsa_key

PEM = pem(rsa_key()).decode()
ISSUER, AUDIENCE = "https://issuer.example/", "https://atoll.example/api"
THREE = {"JWT_PUBLIC_KEY": PEM, "JWT_ISSUER": ISSUER, "JWT_AUDIENCE": AUDIENCE}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ATOLL_DATA": str(tmp_path)}


def test_the_algorithms_are_those_of_the_checks() -> None:
    assert set(ALGORITHMS) == jwt_checks.ALGORITHMS


def test_without_settings_nobody_elses_token_is_taken(env: dict[str, str]) -> None:
    assert identity_providers(load(environ=env)) == []


@pytest.mark.parametrize("form", ["text", "one line", "file"])
def test_the_seeds_names_make_a_provider_of_a_key(env: dict[str, str], tmp_path: Path, form: str) -> None:
    (tmp_path / "key.pem").write_text(PEM)
    text = {"text": PEM, "one line": PEM.replace("\n", "\\n"), "file": str(tmp_path / "key.pem")}[form]
    (one,) = identity_providers(load(environ=env | THREE | {"JWT_PUBLIC_KEY": text}))
    assert (one.issuer, one.rules.audiences, one.algorithms) == (ISSUER, {AUDIENCE}, ("RS256",))
    assert [key.key for key in one.keys] == [rsa_key().public_key()]


def test_an_issuer_and_an_audience_are_enough_for_discovery(env: dict[str, str]) -> None:
    (one,) = identity_providers(load(environ=env | {"JWT_ISSUER": ISSUER, "JWT_AUDIENCE": "one, two"}))
    assert (one.issuer, one.rules.audiences, one.keys) == (ISSUER, {"one", "two"}, ())


@pytest.mark.parametrize(
    "given", [["JWT_PUBLIC_KEY"], ["JWT_ISSUER"], ["JWT_AUDIENCE"], ["JWT_PUBLIC_KEY", "JWT_ISSUER"]]
)
def test_a_provider_that_is_half_named_is_refused_and_what_is_missing_is_said(
    env: dict[str, str], given: list[str]
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(environ=env | {name: THREE[name] for name in given})
    missing = {"identity.jwt.issuer": "JWT_ISSUER", "identity.jwt.audience": "JWT_AUDIENCE"}
    assert all((name in refused.value.message) == (alias not in given) for name, alias in missing.items())


ENTRY: dict[str, Any] = {"name": "one", "issuer": ISSUER, "audience": AUDIENCE}


def of(env: dict[str, str], *entries: dict[str, Any], **more: str) -> Any:
    return load(environ=env | {"ATOLL_IDENTITY__PROVIDERS": json.dumps(entries)} | more)


def test_a_list_of_providers_comes_from_the_environment_or_the_file(env: dict[str, str], tmp_path: Path) -> None:
    full = ENTRY | {"algorithms": "ES256,RS256", "jwks_url": "https://issuer.example/keys", "skew_s": 5}
    full |= {"subject_claim": "uid", "scopes_claim": "permissions", "scope_prefix": "atoll:", "clients": ["console"]}
    full |= {"required_claims": {"org_id": "org_1", "is_anonymous": False, "level": 1}}
    two = ENTRY | {"name": "two", "issuer": "https://two.example"}
    made = identity_providers(of(env, full, two))
    assert [one.name for one in made] == ["one", "two"]
    assert made[0].algorithms == ("ES256", "RS256") and made[0].jwks_url == "https://issuer.example/keys"
    assert (made[0].rules.subject_claim, made[0].rules.skew_s, made[0].clients) == ("uid", 5, {"console"})
    assert made[0].required_claims == (("org_id", "org_1"), ("is_anonymous", False), ("level", 1))
    assert [type(value) for _, value in made[0].required_claims] == [str, bool, int]
    (tmp_path / "atoll.toml").write_text(
        f'[[identity.providers]]\nname = "one"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n'
        '[[identity.providers]]\nname = "two"\nissuer = "http://127.0.0.1:9000"\naudience = ["a", "b"]\n'
    )
    assert [one.issuer for one in identity_providers(load(environ=env))] == [ISSUER, "http://127.0.0.1:9000"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a shared secret": ({"algorithms": ["HS256"]}, "shared secret"),
    "no algorithm": ({"algorithms": ["none"]}, "algorithms"),
    "an empty list of algorithms": ({"algorithms": []}, "algorithms"),
    "no audience": ({"audience": []}, "audience"),
    "an empty audience": ({"audience": ""}, "audience"),
    "an issuer without TLS": ({"issuer": "http://issuer.example"}, "https"),
    "an issuer that cannot be asked": ({"issuer": "issuer"}, "public_key"),
    "keys without TLS": ({"jwks_url": "http://issuer.example/keys"}, "https"),
    "keys behind a password": ({"jwks_url": "https://a:b@issuer.example/keys"}, "user"),
    "keys from two places": ({"jwks_url": "https://issuer.example/keys", "public_key": PEM}, "exclude"),
    "a file that is not there": ({"public_key": "/nonexistent/key.pem"}, "PEM"),
    "an odd name": ({"name": "A B"}, "name"),
    "a name that nobody knows": ({"isuer": "x"}, "isuer"),
    "a required claim that is a list": ({"required_claims": {"a": ["b"]}}, "required_claims"),
    "an hour of skew": ({"skew_s": 3600}, "skew_s"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_provider_is_refused_and_the_field_is_named(env: dict[str, str], case: str) -> None:
    changed, said = WRONG[case]
    with pytest.raises(SettingsError, match=said) as refused:
        of(env, ENTRY | changed)
    assert "identity.providers" in refused.value.message


def test_an_issuer_stands_for_one_provider(env: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="issuer"):
        of(env, ENTRY, ENTRY | {"name": "two"})
    with pytest.raises(SettingsError, match="name"):
        of(env, ENTRY, ENTRY | {"issuer": "https://two.example"})
    with pytest.raises(SettingsError, match="issuer"):
        of(env, ENTRY, **THREE)


def test_no_provider_may_speak_for_this_server(env: dict[str, str]) -> None:
    settings = of(env, ENTRY, ATOLL_AUTH__ISSUER=ISSUER)
    with pytest.raises(SettingsError, match=r"auth\.issuer"):
        identity_providers(settings)


def test_a12_no_server_starts_with_a_key_that_is_weak_or_not_public(env: dict[str, str]) -> None:
    private = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for text, why in (
        (private, "private key"),
        (pem(rsa_key(1024)).decode(), "2048"),
        (pem(ec_key()).decode(), "ES256"),
    ):
        with pytest.raises(SettingsError, match=why) as refused:
            identity_providers(load(environ=env | THREE | {"JWT_PUBLIC_KEY": text}))
        assert text.splitlines()[1] not in refused.value.message
