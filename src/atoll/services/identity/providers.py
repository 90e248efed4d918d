"""Providers: the issuers, besides this server, whose tokens are taken, as the operator has named them.

The composition root makes them of the settings; the authenticator of external tokens holds them.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.services.identity.jwt_checks import Rules
from atoll.services.identity.verification_keys import VerificationKey


@dataclass(frozen=True, slots=True)
class Provider:
    """One issuer. Its keys are those given here, or published at `jwks_url`, or found by OIDC discovery."""

    name: str  # for logs and messages
    rules: Rules
    algorithms: tuple[str, ...] = ("RS256",)
    keys: tuple[VerificationKey, ...] = ()
    jwks_url: str | None = None
    name_claim: str = "name"
    scopes_claim: str | None = None  # where a token lists what it may do; None: each may do everything but administer
    scope_prefix: str = ""  # before each of ours in that list
    clients: frozenset[str] = frozenset()  # who may have asked for a token (azp, client_id); empty: anybody
    required_claims: tuple[tuple[str, str | int | bool], ...] = ()  # what a token must say too, or list

    @property
    def issuer(self) -> str:
        return self.rules.issuer
