"""Identity providers: the issuers, besides this server itself, whose tokens are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, StrictStr, model_validator

from atoll.settings.section import DAY_S, Section

# As the checks of tokens know them; a test compares.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
PEM_CHARS_MAX = 65_536


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _filled(values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(values):
        raise ValueError("may hold no empty text")
    return values


def _algorithms(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values or not set(values) <= set(ALGORITHMS):
        raise ValueError(f"must be some of {', '.join(ALGORITHMS)}: a shared secret (HS256) proves no issuer")
    return values


def _url(text: str) -> str:
    """https, or http on this machine. The text stays as it is: an issuer is compared letter by letter."""
    parts = urlsplit(text)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        raise ValueError("must begin with https:// (http:// for loopback only)")
    if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be a URL without user, query and fragment")
    return text


def _discoverable(issuer: str) -> None:
    try:
        _url(issuer)
    except ValueError as error:
        raise ValueError(f"issuer {error}, to be asked for its keys; or give a public_key") from None


def _pem(text: str) -> str:
    """The text itself, or that of the file that it names."""
    if "-----BEGIN " in text:
        return text
    try:
        with Path(text).expanduser().open() as file:
            return file.read(PEM_CHARS_MAX)
    except (OSError, ValueError):
        raise ValueError("must be a public key in PEM, or the path of a file that can be read") from None


_List = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_filled)]
_Algorithms = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_algorithms)]
_Url = Annotated[str, AfterValidator(_url)]
_Pem = Annotated[str, AfterValidator(_pem)]


class ProviderSettings(Section):
    """One entry of `identity.providers`; docs/identity-providers.md has them all."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    issuer: str = Field(min_length=1, max_length=2_048)
    audience: _List = Field(min_length=1)
    algorithms: _Algorithms = ("RS256",)
    jwks_url: _Url | None = None
    public_key: _Pem | None = None
    subject_claim: str = Field(default="sub", min_length=1, max_length=128)
    name_claim: str = Field(default="name", min_length=1, max_length=128)
    scopes_claim: str | None = Field(default=None, max_length=128)
    scope_prefix: str = Field(default="", max_length=128)
    clients: _List = ()
    required_claims: dict[str, StrictBool | StrictInt | StrictStr] = Field(default={}, max_length=32)
    skew_s: float = Field(default=30.0, ge=0, le=300)

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if self.jwks_url and self.public_key:
            raise ValueError("jwks_url and public_key exclude each other")
        if not self.jwks_url and not self.public_key:
            _discoverable(self.issuer)
        return self


class JwtSettings(Section):
    """One issuer, in a few words: with a key of its own, or found by OIDC discovery."""

    issuer: str | None = None
    """`iss` of its tokens, letter by letter."""
    audience: _List = ()
    """`aud` of its tokens: one of these, separated by commas."""
    public_key: _Pem | None = None
    """Its public key or certificate in PEM, or the path of a file with it. Empty: found at the issuer by discovery."""
    algorithms: _Algorithms = ("RS256",)
    """What its tokens may be signed with, separated by commas."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        # Without an issuer and an audience a token that was meant for another program would open this one.
        given = {"issuer": self.issuer, "audience": self.audience, "public_key": self.public_key}
        if any(given.values()) and not (self.issuer and self.audience):
            missing = " and ".join(f"identity.jwt.{name}" for name in ("issuer", "audience") if not given[name])
            raise ValueError(f"needs {missing} too (JWT_ISSUER, JWT_AUDIENCE)")
        if self.issuer and not self.public_key:
            _discoverable(self.issuer)
        return self


def _providers(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        form = '[{"name": "main", "issuer": "https://…", "audience": "…"}]'
        raise ValueError(f"in the environment it is a JSON list, such as {form}: {error}") from None


class IdentitySettings(Section):
    providers: Annotated[tuple[ProviderSettings, ...], BeforeValidator(_providers)] = Field(default=(), max_length=32)
    """Issuers whose tokens are taken: docs/identity-providers.md. In the environment a JSON list."""
    refresh_s: float = Field(default=300.0, ge=10, le=DAY_S)
    """How old a provider's keys may get while it answers: a key that it withdraws is refused after that."""
    stale_s: float = Field(default=DAY_S, ge=10, le=7 * DAY_S)
    """How old they may get while it does not; then its tokens are answered with 503."""
    jwt: JwtSettings = JwtSettings()

    @property
    def all(self) -> tuple[ProviderSettings, ...]:
        """Those of the list, and the one of `jwt`."""
        one = self.jwt
        if not one.issuer:
            return self.providers
        own = ProviderSettings(
            name="jwt",
            issuer=one.issuer,
            audience=one.audience,
            public_key=one.public_key,
            algorithms=one.algorithms,
        )
        return (*self.providers, own)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for what in ("name", "issuer"):
            values = [getattr(provider, what) for provider in self.all]
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"two providers have the {what} {twice}")
        return self
