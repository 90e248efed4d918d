"""Standing: whether a user, and a login of theirs, may still do anything, as it was at most a moment ago.

Identity and the tokens ask it on every request; whoever ends a login or disables a user tells it to forget.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from atoll.domain.errors import Unauthenticated
from atoll.domain.user import Login, User
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.remembered import Remembered


class Standing:
    """`cache_s` is how long another process may still take what was ended here."""

    def __init__(
        self,
        records: Records,
        *,
        cache_s: float = 2.0,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._users: Remembered[User | None] = Remembered(records.get_user, cache_s, monotonic)
        self._logins: Remembered[Login | None] = Remembered(records.get_login, cache_s, monotonic)

    async def user(self, user_id: str) -> User:
        """The user. Unauthenticated when they are disabled, or gone."""
        user = await self._users.get(user_id)
        if user is None or not user.usable:
            raise Unauthenticated
        return user

    async def login(self, login_id: str) -> Login:
        """The login. Unauthenticated when it is over, or unknown."""
        login = await self._logins.get(login_id)
        if login is None or not login.usable(self._clock()):
            raise Unauthenticated
        return login

    def forget(self, user_id: str) -> None:
        """Something about the user has changed, or about any login of theirs."""
        self._users.forget(user_id)
        self._logins.clear()
