"""External: recognises the access tokens of other issuers; Identity asks it for what is no credential of our own.

Who comes for the first time becomes a user. A token that was checked is believed for a moment without a second look.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog

from atoll.domain.key import DEFAULT_SCOPES, Scope
from atoll.domain.principal import Principal
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.jwt_checks import (
    Token,
    TokenRefused,
    Verified,
    check_claims,
    check_signature,
    looks_like_token,
    take_apart,
)
from atoll.services.identity.providers import Provider
from atoll.services.identity.published_keys import PublishedKeys
from atoll.services.identity.standing import Standing
from atoll.services.identity.users import Users, is_name, principal_of
from atoll.services.identity.verification_keys import VerificationKey
from atoll.services.outbound import Outbound

_log = structlog.get_logger("atoll.identity")
REMEMBERED_MAX = 10_000
NAME_CLAIMS = ("name", "email", "preferred_username")


@dataclass(frozen=True, slots=True)
class _Checked:
    """What a token said that passed."""

    user_id: str
    credential: str
    scopes: frozenset[Scope]
    until: float  # on the monotonic clock


class External:
    """`cache_s` is how long a token that passed is believed; `refresh_s` and `stale_s` as for `PublishedKeys`."""

    def __init__(
        self,
        providers: Iterable[Provider],
        users: Users,
        standing: Standing,
        outbound: Outbound,
        *,
        cache_s: float = 2.0,
        refresh_s: float = 300.0,
        stale_s: float = 86_400.0,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = {provider.issuer: provider for provider in providers}
        self._published = {
            provider.issuer: PublishedKeys(
                provider, outbound, refresh_s=refresh_s, stale_s=stale_s, monotonic=monotonic
            )
            for provider in self._providers.values()
            if not provider.keys
        }
        self._users = users
        self._standing = standing
        self._cache_s = cache_s
        self._clock = clock
        self._monotonic = monotonic
        self._checked: OrderedDict[bytes, _Checked] = OrderedDict()

    async def start(self) -> None:
        """Begin to look for the providers' keys."""
        for keys in self._published.values():
            keys.start()

    async def close(self) -> None:
        """Stop; a second call does nothing."""
        for keys in self._published.values():
            await keys.close()

    def answering(self) -> dict[str, bool]:
        """By name, whether a provider that publishes its keys did so when it was last asked."""
        return {self._providers[issuer].name: keys.answering for issuer, keys in self._published.items()}

    def recognises(self, text: str) -> bool:
        """Every text in the form of a token: to be asked after whoever knows our own."""
        return bool(self._providers) and looks_like_token(text)

    async def authenticate(self, text: str) -> Principal:
        """Who holds it. Unauthenticated, and the log says why; Unavailable while a provider's keys are not known."""
        digest = hashlib.sha256(text.encode()).digest()
        checked = self._checked.get(digest)
        if checked is None or self._monotonic() >= checked.until:
            self._checked.pop(digest, None)
            checked = self._remember(digest, await self._check(text))
        return principal_of(await self._standing.user(checked.user_id), checked.credential, checked.scopes)

    async def _check(self, text: str) -> _Checked:
        provider: Provider | None = None
        try:
            token = take_apart(text)
            provider = self._providers.get(token.issuer)
            if provider is None:
                raise TokenRefused("its issuer is none of the providers")
            now = self._clock().timestamp()
            # The claims first: what has expired is not worth a look at the provider.
            verified = check_claims(token, provider.rules, now)
            check_admitted(verified.claims, provider)
            await self._check_signature(token, provider)
        except TokenRefused as refused:
            _log.info("token.refused", why=refused.why, provider=provider.name if provider else None)
            raise
        user = await self._users.of_subject(provider.issuer, verified.subject, _name(verified, provider.name_claim))
        left_s = verified.expires_at_s + provider.rules.skew_s - now
        return _Checked(
            user.id,
            _credential(provider.issuer, verified.subject),
            _scopes(verified.claims, provider),
            self._monotonic() + min(self._cache_s, left_s),
        )

    async def _check_signature(self, token: Token, provider: Provider) -> None:
        keys = await self._keys_for(token, provider)
        if not keys:
            raise TokenRefused("its provider has no such key")
        for key in keys[:-1]:
            try:
                check_signature(token, key.key, key.algorithms)
                return
            except TokenRefused:
                continue
        check_signature(token, keys[-1].key, keys[-1].algorithms)

    async def _keys_for(self, token: Token, provider: Provider) -> list[VerificationKey]:
        """Never one that the token brings along or points to: its header's jwk, jku, x5c and x5u mean nothing here."""
        if token.algorithm not in provider.algorithms:
            raise TokenRefused(f"its algorithm {token.algorithm} is not its provider's")
        published = self._published.get(provider.issuer)
        if published is not None:
            return await published.find(token.key_id, token.algorithm)
        return [key for key in provider.keys if token.algorithm in key.algorithms]

    def _remember(self, digest: bytes, checked: _Checked) -> _Checked:
        self._checked[digest] = checked
        if len(self._checked) > REMEMBERED_MAX:
            self._checked.popitem(last=False)
        return checked


def check_admitted(claims: Mapping[str, Any], provider: Provider) -> None:
    """TokenRefused for a token of the provider's that the operator does not want: another client's, other people's."""
    asked = claims.get("azp", claims.get("client_id"))
    if provider.clients and (not isinstance(asked, str) or asked not in provider.clients):
        raise TokenRefused("azp is none of the provider's clients")
    for name, wanted in provider.required_claims:
        said = claims.get(name)
        found = cast(list[Any], said) if isinstance(said, list) else [said]
        # True is 1 in Python, and is not in JSON.
        if not any(type(one) is type(wanted) and one == wanted for one in found):
            raise TokenRefused(f"{name} is not what the provider's required_claims say")


def _credential(issuer: str, subject: str) -> str:
    """The same for every token of a subject: the rates of one who asks for a token each time hold too."""
    return "oidc_" + hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()[:24]


def _name(verified: Verified, claim: str) -> str:
    """What people call them: as the operator's claim says, else as the usual ones do."""
    said = (verified.claims.get(one) for one in (claim, *NAME_CLAIMS))
    return next((one for one in said if isinstance(one, str) and one.strip() and is_name(one)), "")


def _scopes(claims: Mapping[str, Any], provider: Provider) -> frozenset[Scope]:
    """Those that the token lists (a list, or one text with spaces); all of the usual where the operator wants none."""
    if provider.scopes_claim is None:
        return DEFAULT_SCOPES
    listed = claims.get(provider.scopes_claim)
    texts = listed.split() if isinstance(listed, str) else cast(list[Any], listed) if isinstance(listed, list) else []
    return frozenset(scope for scope in DEFAULT_SCOPES if provider.scope_prefix + scope in texts)
