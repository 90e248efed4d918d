"""Preview tokens: signed texts that open one preview until they expire; `Previews` mints and the gateway's door checks.

One is a JWT of its own type, so that nothing else takes it, and names the grant of its registration: it ends with that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from atoll.domain.errors import Unauthenticated
from atoll.domain.preview import Preview
from atoll.services.clock import Clock, utc_now
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

    def __init__(self, signing_keys: SigningKeys, *, issuer: str, lasts_s_max: float, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._own = OwnTokens(
            signing_keys,
            issuer=issuer,
            audience=AUDIENCE,
            type=TYPE,
            lasts_s_max=lasts_s_max,
            read=_preview_and_grant,
            clock=clock,
        )

    async def mint(self, preview: Preview, lasts_s: float) -> NewPreviewToken:
        """One for this preview."""
        now_s = int(self._clock().timestamp())
        expires_s = now_s + int(lasts_s)
        text = await self._own.sign(preview.id, now_s, expires_s, grant=preview.grant)
        return NewPreviewToken(text, datetime.fromtimestamp(expires_s, UTC))

    async def opens(self, text: str, preview: Preview) -> float | None:
        """For how many seconds it still opens the preview; None when it does not."""
        try:
            proved = await self._own.prove(text)
        except Unauthenticated:
            return None
        left_s = proved.expires_at_s - self._clock().timestamp()
        return left_s if left_s > 0 and proved.means == (preview.id, preview.grant) else None


def _preview_and_grant(good: Verified) -> tuple[str, str]:
    grant = good.claims.get("grant")
    if not isinstance(grant, str):
        raise TokenRefused("it is of no preview")
    return good.subject, grant
