"""Preview tokens: signed texts that open one preview until they expire; `Previews` mints and the gateway's door checks.

One is a JWT of its own type, so that nothing else takes it, and names the grant of its registration: it ends with that.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from atoll.domain.errors import Unauthenticated
from atoll.domain.ids import new_id
from atoll.domain.preview import Preview
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.jwt_checks import Rules, check_claims, check_signature, take_apart
from atoll.services.identity.signing_keys import SigningKeys

TYPE = "preview+jwt"
AUDIENCE = "preview"
SKEW_S = 5.0
VERIFIED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class NewPreviewToken:
    """The text, and until when it opens the preview."""

    text: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class _Verified:
    key_id: str | None
    expires_at_s: float
    preview: str
    grant: str


class PreviewTokens:
    """`lasts_s_max` is the longest that one may last."""

    def __init__(self, signing_keys: SigningKeys, *, issuer: str, lasts_s_max: float, clock: Clock = utc_now) -> None:
        self._keys = signing_keys
        self._clock = clock
        self._rules = Rules(
            issuer, frozenset({AUDIENCE}), frozenset({TYPE}), skew_s=SKEW_S, lifetime_s_max=lasts_s_max + SKEW_S
        )
        self._verified: OrderedDict[str, _Verified] = OrderedDict()

    async def mint(self, preview: Preview, lasts_s: float) -> NewPreviewToken:
        """One for this preview."""
        key, private = await self._keys.signer()
        now_s = int(self._clock().timestamp())
        expires_s = now_s + int(lasts_s)
        claims: dict[str, Any] = {
            "iss": self._rules.issuer,
            "aud": AUDIENCE,
            "sub": preview.id,
            "grant": preview.grant,
            "jti": new_id("jti"),
            "iat": now_s,
            "nbf": now_s,
            "exp": expires_s,
        }
        text = jwt.encode(claims, private, algorithm=key.algorithm, headers={"kid": key.id, "typ": TYPE})
        return NewPreviewToken(text, datetime.fromtimestamp(expires_s, UTC))

    async def opens(self, text: str, preview: Preview) -> float | None:
        """For how many seconds it still opens the preview; None when it does not."""
        known = self._verified.get(text)
        try:
            verified = known or await self._verify(text)
        except Unauthenticated:
            return None
        left_s = verified.expires_at_s - self._clock().timestamp()
        if left_s <= 0 or verified.preview != preview.id or verified.grant != preview.grant:
            return None
        if known is not None and await self._keys.public(known.key_id) is None:
            self._verified.pop(text, None)
            return None
        return left_s

    async def _verify(self, text: str) -> _Verified:
        token = take_apart(text)
        found = await self._keys.public(token.key_id)
        if found is None:
            raise Unauthenticated
        algorithm, key = found
        check_signature(token, key, (algorithm,))
        good = check_claims(token, self._rules, self._clock().timestamp())
        grant = good.claims.get("grant")
        if not isinstance(grant, str):
            raise Unauthenticated
        verified = self._verified[text] = _Verified(token.key_id, good.expires_at_s, good.subject, grant)
        if len(self._verified) > VERIFIED_MAX:
            self._verified.popitem(last=False)
        return verified
