"""OwnTokens: JWTs that this server signs, and knows again when they come back; access tokens and those of previews are.

Each kind has rules of its own, its type above all, so that nothing takes one for another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import jwt

from atoll.domain.ids import new_id
from atoll.services.clock import Clock
from atoll.services.identity.jwt_checks import (
    Rules,
    TokenRefused,
    Verified,
    check_claims,
    check_signature,
    take_apart,
)
from atoll.services.identity.signing_keys import SigningKeys

T = TypeVar("T")
SKEW_S = 5.0  # between our own servers
REMEMBERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Proved(Generic[T]):
    """A token whose signature is this server's, for good; whether its key still verifies is asked each time."""

    key_id: str | None
    expires_at_s: float
    means: T


class OwnTokens(Generic[T]):
    """Those of one type. `read` says what a token's claims mean, or refuses them."""

    def __init__(
        self,
        keys: SigningKeys,
        *,
        issuer: str,
        audience: str,
        type: str,
        lasts_s_max: float,
        read: Callable[[Verified], T],
        clock: Clock,
    ) -> None:
        self._keys = keys
        self._audience = audience
        self._type = type
        self._read = read
        self._clock = clock
        self.rules = Rules(
            issuer, frozenset({audience}), frozenset({type}), skew_s=SKEW_S, lifetime_s_max=lasts_s_max + SKEW_S
        )
        self._remembered: OrderedDict[str, Proved[T]] = OrderedDict()

    async def sign(self, subject: str, now_s: float, expires_s: float, **claims: str) -> str:
        """A token that is good between these two moments."""
        key, private = await self._keys.signer()
        own: dict[str, str | int] = {
            "iss": self.rules.issuer,
            "aud": self._audience,
            "sub": subject,
            "jti": new_id("jti"),
            "iat": int(now_s),
            "nbf": int(now_s),
            "exp": int(expires_s),
        }
        return jwt.encode(own | claims, private, algorithm=key.algorithm, headers={"kid": key.id, "typ": self._type})

    def remembers(self, text: str) -> bool:
        return text in self._remembered

    async def prove(self, text: str) -> Proved[T]:
        """What it means, though it may have expired since it was first proved. TokenRefused."""
        known = self._remembered.get(text)
        if known is None:
            return await self._proved(text)
        if await self._keys.public(known.key_id) is None:
            self.forget(text)
            raise TokenRefused("its key verifies no more")
        return known

    def forget(self, text: str) -> None:
        self._remembered.pop(text, None)

    async def _proved(self, text: str) -> Proved[T]:
        token = take_apart(text)
        found = await self._keys.public(token.key_id)
        if found is None:
            raise TokenRefused("its key is not ours")
        algorithm, key = found
        check_signature(token, key, (algorithm,))
        good = check_claims(token, self.rules, self._clock().timestamp())
        proved = self._remembered[text] = Proved(token.key_id, good.expires_at_s, self._read(good))
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return proved
