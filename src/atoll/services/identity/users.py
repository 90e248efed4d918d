"""Users: make, list, change, disable and delete them; for administrators, over HTTP and from the command line.

Every rule about a user stands here; how one logs in stands in `logins.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from atoll.domain.errors import AtollError, Conflict, Forbidden, InvalidInput, NotFound, StaleVersion, Unauthenticated
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.user import USER_ID, USERNAME, User
from atoll.domain.workspace import DEFAULT_NAME, Reason, Workspace
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.passwords import Passwords
from atoll.services.identity.standing import Standing

NAME_CHARS_MAX = 255
ID_PREFIXES = ("user_", "key_", "grp_", "login_")  # no username passes for an id
IN_PERSON = re.compile(r"^(login|oidc)_[0-9a-f]{24}$")  # the credentials of those
PLAN = "user"  # whose quotas hold for them
ATTEMPTS = 5
LISTED_MAX = 1_000
REF_CHARS_SHOWN = 256

# Whoever has the database at hand, at the command line.
OPERATOR = Principal("cli", KeyKind.OWNER, DEFAULT_SCOPES, "operator", admin=True)

Welcome = Callable[[Principal], Awaitable[object]]
_log = structlog.get_logger("atoll.users")


@dataclass(frozen=True, slots=True)
class UserChanges:
    """What is to be different; None stays as it is."""

    name: str | None = None
    admin: bool | None = None
    disabled: bool | None = None


class Users:
    """`welcome` gives a user what everybody has from the first login on: the default workspace."""

    def __init__(
        self,
        records: Records,
        passwords: Passwords,
        standing: Standing | None = None,
        *,
        welcome: Welcome | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._records = records
        self._passwords = passwords
        self._standing = standing or Standing(records)
        self._welcome = welcome
        self._clock = clock

    async def create(
        self, principal: Principal, username: str, password: str | None = None, *, name: str = "", admin: bool = False
    ) -> User:
        """Make one; without a password nobody logs in as them until one is set. Conflict when the name is taken."""
        _administers(principal)
        return await self._add(username, password, name, admin, principal.id)

    async def register(self, username: str, password: str, *, name: str = "", address: str) -> User:
        """Make oneself; the caller has seen that everybody may."""
        return await self._add(username, password, name, False, None, stranger=address)

    async def list(self, principal: Principal, *, after: str = "", limit: int = LISTED_MAX) -> list[User]:
        """By username."""
        _administers(principal)
        return await self._records.list_users(after=after, limit=limit)

    async def get(self, principal: Principal, ref: str) -> User:
        """By id or username. NotFound."""
        _administers(principal)
        return await self._find(ref)

    async def change(self, principal: Principal, ref: str, changes: UserChanges) -> User:
        """Change what `changes` names. Disabling ends every login; keys open nothing until they are enabled again."""
        _administers(principal)
        if changes.name is not None:
            _check_name(changes.name)
        for _ in range(ATTEMPTS):
            user = await self._find(ref)
            after = self._changed(user, changes)
            if after == user:
                return user
            event = self._event(_what(user, after), after, principal.id)
            ends = "disabled" if user.usable and not after.usable else None
            try:
                return await self._swap(after, event, ends)
            except StaleVersion:
                continue
        raise Conflict(f"user {ref} keeps changing: try again")

    async def set_password(self, principal: Principal, ref: str, password: str) -> User:
        """Give a user another password; every login of theirs ends."""
        _administers(principal)
        return await self._set_password(ref, password, principal.id)

    async def replace_password(self, user: User, password: str) -> User:
        """Likewise, by the user; the caller has seen that they know the old one."""
        return await self._set_password(user.id, password, user.id)

    async def delete(self, principal: Principal, ref: str) -> User:
        """Remove a user with their logins, webhooks, quotas and what was shared with them; their keys are revoked.
        Conflict while they own a sandbox, a workspace or a secret; the default workspace goes with them while nothing
        was ever done with it."""
        _administers(principal)
        for _ in range(ATTEMPTS):
            user = await self._find(ref)
            try:
                takes = await self._untouched(user, principal.id)
                await self._records.delete_user(user, self._event("user.deleted", user, principal.id), takes=takes)
            except StaleVersion:
                continue
            finally:
                self._standing.forget(user.id)
            return user
        raise Conflict(f"user {ref} keeps changing: try again")

    async def of_subject(self, issuer: str, subject: str, name: str = "") -> User:
        """The user whom an identity provider knows as `subject`, made when they come for the first time.
        Unauthenticated when they are disabled."""
        user = await self._records.find_subject(issuer, subject)
        if user is None:
            user_id = new_id("user")
            name = name if is_name(name) else ""
            made = User(user_id, user_id, self._clock(), name=name, issuer=issuer, subject=subject)
            event = self._event("user.created", made, user_id, {"issuer": issuer})
            try:
                await self._records.add_user(made, event)
            except Conflict:  # they came twice at once
                user = await self._records.find_subject(issuer, subject)
                if user is None:
                    raise
            else:
                self._standing.forget(user_id)  # it may be remembered as unknown
                user = made
        if not user.usable:
            raise Unauthenticated
        return await self.welcome(user)

    async def welcome(self, user: User) -> User:
        """Give them what everybody has, once. What fails is tried again the next time, and keeps nobody out."""
        if user.welcomed_at is not None or self._welcome is None:
            return user
        try:
            await self._welcome(principal_of(user, user.id))
        except Conflict:
            pass  # it is there
        except AtollError as error:
            _log.warning("user.not_welcomed", user=user.id, error=error.message)
            return user
        try:
            return await self._records.swap_user(replace(user, welcomed_at=self._clock()), None)
        except (StaleVersion, NotFound):
            return user

    async def _untouched(self, user: User, actor: str) -> tuple[Workspace, Event] | None:
        """The default workspace, deleted, where it is as it was made: one revision, no tree, no snapshot, no share."""
        found = await self._records.find_workspace(user.id, DEFAULT_NAME)
        if found is None or found.tree_id or found.sandbox_id or found.sandbox_config:
            return None
        head = await self._records.get_revision(found.head)
        if (
            head is None
            or head.number != 1
            or head.reason is not Reason.CREATED
            or await self._records.list_snapshots(workspace=found.id, limit=1)
            or await self._records.list_shares(found.id)
        ):
            return None
        now = self._clock()
        told = {"name": found.name}
        event = Event("workspace.deleted", found.id, user.id, actor, detail=told, at=now)
        return replace(found, deleted_at=now, updated_at=now), event

    async def _add(
        self,
        username: str,
        password: str | None,
        name: str,
        admin: bool,
        actor: str | None,
        *,
        stranger: str | None = None,
    ) -> User:
        username = username_of(username)
        _check_name(name)
        hashed = None
        if password is not None:
            self._passwords.check(password, username)
            if await self._records.find_user(username) is not None:
                raise Conflict(f"the user {username!r} exists already")
            hashed = await self._passwords.hash(password, stranger=stranger)
        user = User(new_id("user"), username, self._clock(), hashed, name, admin)
        event = self._event("user.created", user, actor or user.id, {"admin": admin})
        await self._records.add_user(user, event)
        self._standing.forget(user.id)
        return user

    async def _set_password(self, ref: str, password: str, actor: str) -> User:
        user = await self._find(ref)
        if user.issuer is not None:
            raise Conflict("this user logs in at an identity provider and has no password here")
        self._passwords.check(password, user.username)
        hashed = await self._passwords.hash(password)
        for _ in range(ATTEMPTS):
            event = self._event("user.password_changed", user, actor)
            try:
                return await self._swap(replace(user, password_hash=hashed), event, "password")
            except StaleVersion:
                user = await self._find(user.id)
        raise Conflict(f"user {ref} keeps changing: try again")

    async def _swap(self, user: User, event: Event, ends: str | None) -> User:
        try:
            return await self._records.swap_user(user, event, end_logins=ends)
        finally:
            self._standing.forget(user.id)  # also when the answer was lost: the change may have been made

    async def _find(self, ref: str) -> User:
        by_id = USER_ID.match(ref) is not None
        user = await (self._records.get_user(ref) if by_id else self._records.find_user(ref.lower()))
        if user is None:
            raise NotFound(f"user not found: {ref[:REF_CHARS_SHOWN]!r}")
        return user

    def _changed(self, user: User, changes: UserChanges) -> User:
        disabled_at = user.disabled_at
        if changes.disabled is not None and changes.disabled == user.usable:
            disabled_at = self._clock() if changes.disabled else None
        return replace(
            user,
            name=user.name if changes.name is None else changes.name,
            admin=user.admin if changes.admin is None else changes.admin,
            disabled_at=disabled_at,
        )

    def _event(self, action: str, user: User, actor: str, detail: dict[str, object] | None = None) -> Event:
        told = {"username": user.username} | (detail or {})
        return Event(action, user.id, user.id, actor, detail=told, at=self._clock())


def principal_of(user: User, credential: str, scopes: frozenset[Scope] = DEFAULT_SCOPES) -> Principal:
    """The user as who asks, in person."""
    return Principal(
        id=user.id,
        kind=KeyKind.STANDARD,
        scopes=scopes,
        name=user.name or user.username,
        credential=credential,
        plan=PLAN,
        admin=user.admin,
    )


def is_in_person(principal: Principal) -> bool:
    """Whether it is a user who has logged in, here or at a provider, and not a key or a sandbox of theirs."""
    return USER_ID.match(principal.id) is not None and IN_PERSON.match(principal.credential) is not None


def speaks_for_account(principal: Principal) -> bool:
    """Whether what bounds the whole account is for it to say: the user in person, or the account's own key; none of
    the keys that these made."""
    return is_in_person(principal) or principal.credential == principal.id


def require_in_person(principal: Principal) -> None:
    """Forbidden for a key: what it may make is narrower than itself, and made elsewhere."""
    if not is_in_person(principal):
        raise Forbidden("only a user who has logged in may do this: a key makes narrower ones with POST /api/keys")


def username_of(text: str) -> str:
    """As a record has it. InvalidInput for what cannot be one, and for what looks like an id."""
    username = text.lower()
    if not USERNAME.fullmatch(username) or username.startswith(ID_PREFIXES):
        raise InvalidInput(
            "username must be 1 to 128 of a-z, 0-9 and . _ @ + -, and begin with a letter or digit", field="username"
        )
    return username


def _administers(principal: Principal) -> None:
    if not principal.admin:
        raise Forbidden("only an administrator may do this")


def _check_name(name: str) -> None:
    if not is_name(name):
        raise InvalidInput(f"name must be at most {NAME_CHARS_MAX} printable characters", field="name")


def is_name(name: str) -> bool:
    """Whether it may be what a user is called."""
    return len(name) <= NAME_CHARS_MAX and not any(unicodedata.category(char)[0] == "C" for char in name)


def _what(before: User, after: User) -> str:
    if before.usable != after.usable:
        return "user.enabled" if after.usable else "user.disabled"
    return "user.changed"
