"""Preview tokens: signed texts that open one preview until they expire; `Previews` mints and the gateway's door checks.

One is a JWT of its own type, so that nothing else takes it. It names the grant of its registration and what its maker
came with: it ends with either.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from atoll.domain.errors import Unauthenticated
from atoll.domain.key import Scope
from atoll.domain.preview import Preview
from atoll.domain.principal import Principal
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.connected import Connected, Source, lasting_credential
from atoll.services.identity.jwt_checks import TokenRefused, Verified
from atoll.services.identity.own_tokens import OwnTokens
from atoll.services.identity.signing_keys import SigningKeys

TYPE = "preview+jwt"
AUDIENCE = "preview"


@dataclass(frozen=True, slots=True)
class NewPreviewToken:
    """The text, and until when it opens the preview."""

    text: str
    expires_at: datetime


class PreviewTokens:
    """`lasts_s_max` is the longest that one may last."""

    def __init__(
        self,
        signing_keys: SigningKeys,
        connected: Connected,
        *,
        issuer: str,
        lasts_s_max: float,
        clock: Clock = utc_now,
    ) -> None:
        self._clock = clock
        self._connected = connected
        self._own = OwnTokens(
            signing_keys,
            issuer=issuer,
            audience=AUDIENCE,
            type=TYPE,
            lasts_s_max=lasts_s_max,
            read=_meaning,
            clock=clock,
        )

    async def mint(self, principal: Principal, preview: Preview, lasts_s: float) -> NewPreviewToken:
        """One for this preview, made by the principal."""
        now_s = int(self._clock().timestamp())
        expires_s = now_s + int(lasts_s)
        maker = lasting_credential(principal)
        source = await self._connected.source(maker, preview.owner)
        claims = {"grant": preview.grant, "maker": maker, "made_by": _text_of(source)}
        text = await self._own.sign(preview.id, now_s, expires_s, **claims)
        return NewPreviewToken(text, datetime.fromtimestamp(expires_s, UTC))

    async def opens(self, text: str, preview: Preview) -> float | None:
        """For how many seconds it still opens the preview; None when it does not."""
        try:
            proved = await self._own.prove(text)
            left_s = proved.expires_at_s - self._clock().timestamp()
            preview_id, grant, maker, made_by = proved.means
            if left_s <= 0 or (preview_id, grant) != (preview.id, preview.grant):
                return None
            source = await self._connected.source(maker, preview.owner)
        except Unauthenticated:
            return None
        return left_s if Scope.EXECUTE in source.scopes and _text_of(source) == made_by else None


def _meaning(good: Verified) -> tuple[str, ...]:
    """The preview's id, its grant, what the maker came with, and which text that had."""
    means = [good.subject]
    for name in ("grant", "maker", "made_by"):
        claim = good.claims.get(name)
        if not isinstance(claim, str):
            raise TokenRefused("it is of no preview")
        means.append(claim)
    return tuple(means)


def _text_of(source: Source) -> str:
    """Another one once the maker's key was rotated: who had its old text may have made the token."""
    return source.key_hash[:16]
