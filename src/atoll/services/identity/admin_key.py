"""AdminKey: the one credential that opens `/admin`; it stands in the settings, and no key in the records equals it.

An authenticator of `Identity`; the services of `/admin` ask it whether somebody is the administrator.
"""

from __future__ import annotations

import hmac

from atoll.domain.errors import Forbidden, Unauthenticated, Unavailable
from atoll.domain.key import DEFAULT_SCOPES, KeyKind
from atoll.domain.principal import Principal

ADMIN_ID = "admin"
ADMIN = Principal(ADMIN_ID, KeyKind.OWNER, DEFAULT_SCOPES, "admin", admin=True)


class AdminUnset(Unavailable):
    """Admin endpoints not configured"""

    retryable = False


class AdminRequired(Forbidden):
    """Admin authentication required"""


class AdminKey:
    """`text` is the setting `admin.api_key`; None: nobody is the administrator."""

    def __init__(self, text: str | None) -> None:
        self._text = None if text is None else text.encode()

    @property
    def configured(self) -> bool:
        return self._text is not None

    def recognises(self, text: str) -> bool:
        """Whether it is this key; takes as long for any text of its length."""
        return self._text is not None and hmac.compare_digest(self._text, text.encode())

    async def authenticate(self, text: str) -> Principal:
        """Who holds it. Unauthenticated for any other text."""
        if not self.recognises(text):
            raise Unauthenticated
        return ADMIN

    def require(self, principal: Principal) -> None:
        """AdminUnset without the setting; AdminRequired for anybody else, whatever their scopes and kind."""
        if not self.configured:
            raise AdminUnset
        if principal is not ADMIN and principal.credential != ADMIN_ID:
            raise AdminRequired
