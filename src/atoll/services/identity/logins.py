"""Logins: a username and a password for an access token and a refresh token, which is exchanged for the next pair.

Each refresh token is good once. Whoever comes with one a second time has it from somewhere: the whole login ends.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from atoll.domain.errors import AtollError, Conflict, Forbidden, NotFound, StaleVersion, Unauthenticated
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.principal import Principal
from atoll.domain.user import USERNAME, Login, RefreshToken, User
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.passwords import Passwords
from atoll.services.identity.standing import Standing
from atoll.services.identity.throttling import LoginThrottle
from atoll.services.identity.tokens import AccessToken, Tokens
from atoll.services.identity.users import Users, require_in_person

REFRESH_PREFIX = "rt_"
REFRESH_CHARS_MAX = 256
PRUNE_EVERY_S = 3_600.0
ATTEMPTS = 5
_log = structlog.get_logger("atoll.logins")


class WrongLogin(Unauthenticated):
    """The username or the password is wrong."""


class WrongRefreshToken(Unauthenticated):
    """The refresh token is not valid: log in again."""


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """How long what lasts."""

    refresh_ttl_s: float = 14 * 86_400.0
    login_ttl_s: float = 90 * 86_400.0
    logins_kept: int = 50  # of a user's at a time
    ended_kept_s: float = 30 * 86_400.0
    registration: bool = False


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a login gives; nobody can ask for it a second time."""

    access: AccessToken
    refresh: str


class Logins:
    def __init__(
        self,
        records: Records,
        users: Users,
        passwords: Passwords,
        tokens: Tokens,
        standing: Standing,
        throttle: LoginThrottle,
        limits: LoginLimits | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._records = records
        self._users = users
        self._passwords = passwords
        self._tokens = tokens
        self._standing = standing
        self._throttle = throttle
        self._limits = limits or LoginLimits()
        self._clock = clock
        self._pruned_s = time.monotonic()

    async def login(self, username: str, password: str, *, address: str) -> TokenPair:
        """Log in. WrongLogin, in the same time for whatever is wrong; RateLimited after too many of those."""
        username = username.lower()[:256]
        await self._throttle.begin(username, address)
        user = await self._records.find_user(username) if USERNAME.fullmatch(username) else None
        stranger = None if self._throttle.knows(username, address) else address
        stored = None if user is None else user.password_hash
        matches = await self._passwords.verify(stored, password, stranger=stranger)
        if user is None or not matches or not user.usable:
            _log.info("login.refused", address=address, user=None if user is None else user.id)
            raise WrongLogin
        await self._throttle.succeed(username, address)
        user = await self._users.welcome(await self._rehashed(user, password))
        return await self._begin(user)

    async def register(self, username: str, password: str, *, name: str = "", address: str) -> TokenPair:
        """Make oneself a user and log in. NotFound where the settings do not let everybody."""
        if not self._limits.registration:
            raise NotFound("users are made by an administrator here")
        await self._throttle.begin_registration(address)
        user = await self._users.register(username, password, name=name, address=address)
        return await self._begin(await self._users.welcome(user))

    async def refresh(self, refresh_token: str, *, address: str) -> TokenPair:
        """The next pair. WrongRefreshToken, or RateLimited after many of those; for one that was used before it ends
        the login too. Only failures count: a right token is good however many wrong ones come from its address."""
        used = _hash(refresh_token)
        found = None if used is None else await self._records.find_refresh_token(used)
        if used is None or found is None or not found[2].usable:
            await self._throttle.fail_unnamed(address)
            raise WrongRefreshToken
        token_before, login, user = found
        now = self._clock()
        text, token = self._new_token(login)
        # First: a vault that is down must not use the old one up. For a replay there is none.
        access = await self._tokens.issue(user, login) if token_before.used_at is None else None
        rotated = await self._records.rotate_refresh_token(
            used,
            token,
            now,
            self._event("login.refreshed", login),
            self._event("login.ended", login, {"reason": "replayed"}, outcome="refused"),
        )
        if rotated is None or access is None:
            self._standing.forget(user.id)
            await self._throttle.fail_unnamed(address)
            raise WrongRefreshToken
        return TokenPair(access, text)

    async def logout(self, *, refresh_token: str | None = None, access_token: str | None = None) -> None:
        """End the login of either token: both are refused from now on, on other servers within two seconds.
        Unauthenticated when neither is of a login that lasts. Never refused for how often: it only takes away."""
        login = await self._login_of(refresh_token, access_token)
        try:
            await self._records.end_login(
                login.id, self._clock(), "logout", self._event("login.ended", login, {"reason": "logout"})
            )
        finally:
            self._standing.forget(login.owner)

    async def change_password(self, principal: Principal, old: str, new: str, *, address: str) -> None:
        """Change one's own, knowing the old one; every login of the user ends, this one too. Forbidden when `old` is
        wrong, RateLimited after too many such attempts."""
        require_in_person(principal)
        user = await self._standing.user(principal.id)
        await self._throttle.begin(user.username, address)
        if not await self._passwords.verify(user.password_hash, old):
            raise Forbidden("the old password is wrong")
        await self._throttle.succeed(user.username, address)
        await self._users.replace_password(user, new)

    async def me(self, principal: Principal) -> User | None:
        """The user who asks; None for a key that is nobody's."""
        return await self._records.get_user(principal.id)

    async def _login_of(self, refresh_token: str | None, access_token: str | None) -> Login:
        if refresh_token is not None:
            used = _hash(refresh_token)
            found = None if used is None else await self._records.find_refresh_token(used)
            if found is not None and found[1].usable(self._clock()):
                return found[1]
            raise WrongRefreshToken
        if access_token is None or not self._tokens.recognises(access_token):
            raise Unauthenticated("an access token of a login is required, or its refresh token in the body")
        principal = await self._tokens.authenticate(access_token)
        return await self._standing.login(principal.credential)

    async def _begin(self, user: User) -> TokenPair:
        now = self._clock()
        login = Login(new_id("login"), user.id, now, now + timedelta(seconds=self._limits.login_ttl_s))
        text, token = self._new_token(login)
        access = await self._tokens.issue(user, login)  # before there is a login: a vault that is down leaves none
        await self._add(user, login, token)
        self._standing.forget(user.id)
        await self._prune()
        return TokenPair(access, text)

    async def _add(self, user: User, login: Login, token: RefreshToken) -> None:
        """WrongLogin when the user was disabled or got another password since it was looked at."""
        event, verified = self._event("login.created", login), user.password_hash
        for _ in range(ATTEMPTS):
            try:
                await self._records.add_login(
                    login, token, event, kept=self._limits.logins_kept, user_version=user.version
                )
                return
            except StaleVersion:
                again = await self._records.get_user(user.id)
                if again is None or not again.usable or again.password_hash != verified:
                    raise WrongLogin from None
                user = again
        raise Conflict("this user keeps changing: try again")

    def _new_token(self, login: Login) -> tuple[str, RefreshToken]:
        text = REFRESH_PREFIX + secrets.token_hex(32)
        now = self._clock()
        expires_at = min(now + timedelta(seconds=self._limits.refresh_ttl_s), login.expires_at)
        return text, RefreshToken(hashlib.sha256(text.encode()).hexdigest(), login.id, now, expires_at)

    async def _rehashed(self, user: User, password: str) -> User:
        """With a hash of today's costs, when it was another's."""
        if user.password_hash is None or not self._passwords.is_outdated(user.password_hash):
            return user
        hashed = await self._passwords.hash(password)
        try:
            return await self._records.swap_user(replace(user, password_hash=hashed), None)
        except StaleVersion:
            return user  # the next login does it

    async def _prune(self) -> None:
        if time.monotonic() < self._pruned_s + PRUNE_EVERY_S:
            return
        self._pruned_s = time.monotonic()
        try:
            await self._records.prune_logins(self._clock() - timedelta(seconds=self._limits.ended_kept_s))
        except AtollError as error:
            _log.warning("logins.not_pruned", error=error.message)

    def _event(
        self,
        action: str,
        login: Login,
        detail: dict[str, object] | None = None,
        outcome: str = "ok",
    ) -> Event:
        return Event(action, login.id, login.owner, login.owner, outcome, detail=detail or {}, at=self._clock())


def _hash(refresh_token: str) -> str | None:
    """None for what cannot be one."""
    if len(refresh_token) > REFRESH_CHARS_MAX or not refresh_token.isascii():
        return None
    return hashlib.sha256(refresh_token.encode()).hexdigest()
