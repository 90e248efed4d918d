"""The part of the records contract about users, their logins and the keys that sign tokens; `Records` includes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from atoll.domain.event import Event
from atoll.domain.user import Login, RefreshToken, SigningKey, User
from atoll.domain.workspace import Workspace


class UserRecords(ABC):
    """See `Records` for what holds of all."""

    # users

    @abstractmethod
    async def add_user(self, user: User, event: Event) -> None:
        """Insert. Conflict when the id, the username, or the subject of that issuer exists."""

    @abstractmethod
    async def swap_user(self, user: User, event: Event | None, *, end_logins: str | None = None) -> User:
        """As `swap_sandbox`, for a user. `end_logins` is the reason for which all of the user's logins end with it,
        at the event's moment. Conflict when the username is taken."""

    @abstractmethod
    async def get_user(self, user_id: str) -> User | None: ...

    @abstractmethod
    async def find_user(self, username: str) -> User | None:
        """By its unique name."""

    @abstractmethod
    async def find_subject(self, issuer: str, subject: str) -> User | None:
        """By who an identity provider says that it is."""

    @abstractmethod
    async def list_users(self, *, after: str = "", limit: int = 1000) -> list[User]:
        """In the order of their usernames, those behind `after`."""

    @abstractmethod
    async def delete_user(self, user: User, event: Event, *, takes: tuple[Workspace, Event] | None = None) -> None:
        """Remove it with its logins and refresh tokens. StaleVersion when it changed, NotFound when it is gone,
        Conflict while it owns a sandbox that has not ended, a workspace or a secret, or is a group's only admin.
        Its keys are revoked, and it belongs to no group any more. `takes` is a workspace of theirs that goes with them,
        as it is to be stored, and the event of that; StaleVersion when that changed."""

    # logins

    @abstractmethod
    async def add_login(self, login: Login, token: RefreshToken, event: Event, *, kept: int, user_version: int) -> None:
        """Insert both. Of the user's logins that last, only the newest `kept` stay; older ones end as evicted.
        StaleVersion when the user is not of that version any more, NotFound when they are gone."""

    @abstractmethod
    async def get_login(self, login_id: str) -> Login | None: ...

    @abstractmethod
    async def rotate_refresh_token(
        self, used: str, new: RefreshToken, at: datetime, event: Event, replayed: Event
    ) -> Login | None:
        """Exchange the token of that hash for `new`, whose `login` is the same; `event` goes with it.

        Of any number of concurrent calls with one token exactly one gets the login. None for an unknown or expired
        token, or one of a login that is over: nothing changes then. A token that was used already ends its whole login
        as replayed, with the event `replayed`, and gives None.
        """

    @abstractmethod
    async def find_refresh_token(self, token_hash: str) -> tuple[RefreshToken, Login, User] | None: ...

    @abstractmethod
    async def end_login(self, login_id: str, at: datetime, reason: str, event: Event) -> bool:
        """End it, with the event; False, and no event, when it does not exist or was over."""

    @abstractmethod
    async def prune_logins(self, before: datetime) -> int:
        """Delete logins that ended or expired before that moment, with their tokens; returns how many."""

    # keys that sign tokens

    @abstractmethod
    async def add_signing_key(self, key: SigningKey, event: Event, *, retires: str | None = None) -> bool:
        """Insert, and retire the key `retires` at the new one's `created_at`. False, and nothing changes, when the key
        that signs now (the newest that is not retired) is another than `retires`: somebody was faster."""

    @abstractmethod
    async def list_signing_keys(self) -> list[SigningKey]:
        """Newest first."""

    @abstractmethod
    async def delete_signing_key(self, key_id: str, event: Event) -> bool:
        """Remove it: what it signed is refused. False, and no event, when it does not exist."""
