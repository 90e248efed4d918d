"""Tokens: the access tokens of users, signed here and recognised here on every request; Identity asks them.

One is a JWT (RFC 9068) of a few minutes, good only while its login lasts and its user may do anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.domain.errors import Unauthenticated
from atoll.domain.key import DEFAULT_SCOPES, Scope
from atoll.domain.principal import Principal
from atoll.domain.user import LOGIN_ID, USER_ID, Login, User
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.jwt_checks import TokenRefused, Verified, looks_like_token, take_apart
from atoll.services.identity.own_tokens import SKEW_S, OwnTokens
from atoll.services.identity.signing_keys import SigningKeys
from atoll.services.identity.standing import Standing
from atoll.services.identity.users import principal_of

TYPE = "at+jwt"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The text, and for how many seconds it is good."""

    text: str
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class _Access:
    """Who came, and how."""

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
        self._standing = standing
        self._audience = audience
        self._access_ttl_s = access_ttl_s
        self._clock = clock
        self._own = OwnTokens(
            signing_keys,
            issuer=issuer,
            audience=audience,
            type=TYPE,
            lasts_s_max=access_ttl_s,
            read=self._read,
            clock=clock,
        )

    async def issue(self, user: User, login: Login) -> AccessToken:
        """A token of that login's."""
        now_s = self._clock().timestamp()
        expires_s = min(now_s + self._access_ttl_s, login.expires_at.timestamp())
        scope = " ".join(sorted(DEFAULT_SCOPES))
        text = await self._own.sign(user.id, now_s, expires_s, client_id=self._audience, sid=login.id, scope=scope)
        return AccessToken(text, int(expires_s) - int(now_s))

    def recognises(self, text: str) -> bool:
        """Whether it is a JWT that says it is ours; others have authenticators of their own."""
        if self._own.remembers(text):
            return True
        if not looks_like_token(text):
            return False
        try:
            return take_apart(text).issuer == self._own.rules.issuer
        except TokenRefused:
            return False

    async def authenticate(self, text: str) -> Principal:
        """The user, who came with this login. Unauthenticated for whatever is wrong with it."""
        proved = await self._own.prove(text)
        if self._clock().timestamp() >= proved.expires_at_s + SKEW_S:
            self._own.forget(text)
            raise Unauthenticated
        access = proved.means
        login = await self._standing.login(access.login)
        if login.owner != access.user:
            raise Unauthenticated
        user = await self._standing.user(access.user)
        return principal_of(user, login.id, access.scopes)

    def _read(self, good: Verified) -> _Access:
        login, scope = good.claims.get("sid"), good.claims.get("scope")
        if good.claims["aud"] != self._audience or "iat" not in good.claims or "nbf" not in good.claims:
            raise TokenRefused("it is none that is issued here")
        if not isinstance(login, str) or not LOGIN_ID.match(login) or not USER_ID.match(good.subject):
            raise TokenRefused("it is of no login")
        words = scope.split() if isinstance(scope, str) else []
        return _Access(good.subject, login, frozenset(one for one in DEFAULT_SCOPES if one.value in words))
