"""Tokens: the access tokens of users, signed here and recognised here on every request; Identity asks them.

One is a JWT (RFC 9068) of a few minutes, good only while its login lasts and its user may do anything.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import jwt

from atoll.domain.errors import Unauthenticated
from atoll.domain.ids import new_id
from atoll.domain.key import DEFAULT_SCOPES, Scope
from atoll.domain.principal import Principal
from atoll.domain.user import LOGIN_ID, USER_ID, Login, User
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.jwt_checks import (
    Rules,
    TokenRefused,
    check_claims,
    check_signature,
    looks_like_token,
    take_apart,
)
from atoll.services.identity.signing_keys import SigningKeys
from atoll.services.identity.standing import Standing
from atoll.services.identity.users import principal_of

TYPE = "at+jwt"
SKEW_S = 5.0  # between our own servers
VERIFIED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The text, and for how many seconds it is good."""

    text: str
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class _Verified:
    key_id: str | None  # whose signature it has, for good; whether that key verifies is asked each time
    expires_at_s: float
    user: str
    login: str
    scopes: frozenset[Scope]


class Tokens:
    """An authenticator of Identity, and what issues what it accepts."""

    def __init__(
        self,
        signing_keys: SigningKeys,
        standing: Standing,
        *,
        issuer: str,
        audience: str,
        access_ttl_s: float = 900.0,
        clock: Clock = utc_now,
    ) -> None:
        self._keys = signing_keys
        self._standing = standing
        self._audience = audience
        self._access_ttl_s = access_ttl_s
        self._clock = clock
        self._rules = Rules(
            issuer, frozenset({audience}), frozenset({TYPE}), skew_s=SKEW_S, lifetime_s_max=access_ttl_s + SKEW_S
        )
        self._verified: OrderedDict[str, _Verified] = OrderedDict()

    async def issue(self, user: User, login: Login) -> AccessToken:
        """A token of that login's."""
        key, private = await self._keys.signer()
        now_s = self._clock().timestamp()
        expires_s = min(now_s + self._access_ttl_s, login.expires_at.timestamp())
        claims = {
            "iss": self._rules.issuer,
            "aud": self._audience,
            "client_id": self._audience,
            "sub": user.id,
            "sid": login.id,
            "jti": new_id("jti"),
            "iat": int(now_s),
            "nbf": int(now_s),
            "exp": int(expires_s),
            "scope": " ".join(sorted(DEFAULT_SCOPES)),
        }
        text = jwt.encode(claims, private, algorithm=key.algorithm, headers={"kid": key.id, "typ": TYPE})
        return AccessToken(text, int(expires_s) - int(now_s))

    def recognises(self, text: str) -> bool:
        """Whether it is a JWT that says it is ours; others have authenticators of their own."""
        if text in self._verified:
            return True
        if not looks_like_token(text):
            return False
        try:
            return take_apart(text).issuer == self._rules.issuer
        except TokenRefused:
            return False

    async def authenticate(self, text: str) -> Principal:
        """The user, who came with this login. Unauthenticated for whatever is wrong with it."""
        verified = self._verified.get(text)
        if verified is None:
            verified = await self._verify(text)
        elif await self._keys.public(verified.key_id) is None:
            self._verified.pop(text, None)
            raise TokenRefused("its key verifies no more")
        if self._clock().timestamp() >= verified.expires_at_s + SKEW_S:
            self._verified.pop(text, None)
            raise Unauthenticated
        login = await self._standing.login(verified.login)
        if login.owner != verified.user:
            raise Unauthenticated
        user = await self._standing.user(verified.user)
        return principal_of(user, login.id, verified.scopes)

    async def _verify(self, text: str) -> _Verified:
        token = take_apart(text)
        found = await self._keys.public(token.key_id)
        if found is None:
            raise TokenRefused("its key is not ours")
        algorithm, key = found
        check_signature(token, key, (algorithm,))
        good = check_claims(token, self._rules, self._clock().timestamp())
        login, scope = good.claims.get("sid"), good.claims.get("scope")
        if good.claims["aud"] != self._audience or "iat" not in good.claims or "nbf" not in good.claims:
            raise TokenRefused("it is none that is issued here")
        if not isinstance(login, str) or not LOGIN_ID.match(login) or not USER_ID.match(good.subject):
            raise TokenRefused("it is of no login")
        words = scope.split() if isinstance(scope, str) else []
        scopes = frozenset(one for one in DEFAULT_SCOPES if one.value in words)
        verified = _Verified(token.key_id, good.expires_at_s, good.subject, login, scopes)
        self._verified[text] = verified
        if len(self._verified) > VERIFIED_MAX:
            self._verified.popitem(last=False)
        return verified
