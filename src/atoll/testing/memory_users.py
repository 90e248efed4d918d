"""Users, their logins and the keys that sign tokens in dictionaries: a part of `MemoryRecords`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from atoll.domain.errors import Conflict, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.user import Login, RefreshToken, SigningKey, User
from atoll.domain.workspace import Workspace
from atoll.records.users import UserRecords


class MemoryUsers(UserRecords):
    """See `UserRecords`. What it needs of the whole is `_check`, `_log`, the sandboxes, the keys and the workspaces."""

    _check: Any
    _log: Any

    def __init__(self) -> None:
        super().__init__()
        self._users: dict[str, User] = {}
        self._logins: dict[str, Login] = {}
        self._refresh_tokens: dict[str, RefreshToken] = {}
        self._signing_keys: dict[str, SigningKey] = {}

    async def add_user(self, user: User, event: Event) -> None:
        self._check()
        if user.id in self._users:
            raise Conflict(f"user {user.id} exists")
        self._refuse_taken(user)
        self._users[user.id] = user
        self._log(event)

    async def swap_user(self, user: User, event: Event | None, *, end_logins: str | None = None) -> User:
        self._check()
        self._current(user)
        self._refuse_taken(user)
        after = self._users[user.id] = replace(user, version=user.version + 1)
        if event is not None and end_logins is not None:
            for login in [one for one in self._logins.values() if one.owner == user.id]:
                self._end(login.id, event.at, end_logins)
        self._log(event)
        return after

    async def get_user(self, user_id: str) -> User | None:
        self._check()
        return self._users.get(user_id)

    async def find_user(self, username: str) -> User | None:
        self._check()
        return next((user for user in self._users.values() if user.username == username), None)

    async def find_subject(self, issuer: str, subject: str) -> User | None:
        self._check()
        wanted = (issuer, subject)
        return next((user for user in self._users.values() if (user.issuer, user.subject) == wanted), None)

    async def list_users(self, *, after: str = "", limit: int = 1000) -> list[User]:
        self._check()
        found = sorted(self._users.values(), key=lambda user: user.username)
        return [user for user in found if user.username > after][:limit]

    async def delete_user(self, user: User, event: Event, *, takes: tuple[Workspace, Event] | None = None) -> None:
        self._check()
        self._current(user)
        whole: Any = self
        if takes is not None:
            whole._check_version(takes[0])
        goes = None if takes is None else "1 workspaces"
        theirs = [f"{count} {what}" for what, count in whole._owned(user.id) if count and what != "keys"]
        if theirs := [one for one in theirs if one != goes]:
            raise Conflict(f"user {user.id} owns {', '.join(theirs)}")
        whole._leave_groups(user.id)
        if takes is not None:
            whole._workspaces[takes[0].id] = replace(takes[0], version=takes[0].version + 1)
            self._log(takes[1])
        whole._forget_leavings(user.id)
        for key in [one for one in whole._keys.values() if one.owner == user.id and one.revoked_at is None]:
            whole._keys[key.id] = replace(key, revoked_at=event.at, version=key.version + 1)
        for login in [one.id for one in self._logins.values() if one.owner == user.id]:
            self._forget(login)
        del self._users[user.id]
        self._log(event)

    async def add_login(self, login: Login, token: RefreshToken, event: Event, *, kept: int, user_version: int) -> None:
        self._check()
        if login.owner not in self._users:
            raise NotFound(f"user {login.owner} not found")
        if self._users[login.owner].version != user_version:
            raise StaleVersion()
        if login.id in self._logins:
            raise Conflict(f"login {login.id} exists")
        self._logins[login.id] = login
        self._refresh_tokens[token.hash] = token
        lasting = [one for one in self._logins.values() if one.owner == login.owner and one.ended_at is None]
        lasting.sort(key=lambda one: (one.created_at, one.id), reverse=True)
        for one in lasting[kept:]:
            self._end(one.id, login.created_at, "evicted")
        self._log(event)

    async def get_login(self, login_id: str) -> Login | None:
        self._check()
        return self._logins.get(login_id)

    async def rotate_refresh_token(
        self, used: str, new: RefreshToken, at: datetime, event: Event, replayed: Event
    ) -> Login | None:
        self._check()
        token = self._refresh_tokens.get(used)
        login = None if token is None else self._logins.get(token.login)
        if token is None or login is None or token.login != new.login or not login.usable(at):
            return None
        if token.used_at is not None:
            self._end(login.id, at, "replayed")
            self._log(replayed)
            return None
        if token.expires_at <= at:
            return None
        self._refresh_tokens[used] = replace(token, used_at=at)
        self._refresh_tokens[new.hash] = new
        self._log(event)
        return login

    async def find_refresh_token(self, token_hash: str) -> tuple[RefreshToken, Login, User] | None:
        self._check()
        token = self._refresh_tokens.get(token_hash)
        if token is None:
            return None
        login = self._logins[token.login]
        return token, login, self._users[login.owner]

    async def end_login(self, login_id: str, at: datetime, reason: str, event: Event) -> bool:
        self._check()
        if not self._end(login_id, at, reason):
            return False
        self._log(event)
        return True

    async def prune_logins(self, before: datetime) -> int:
        self._check()
        over = [
            login.id
            for login in self._logins.values()
            if login.expires_at < before or (login.ended_at is not None and login.ended_at < before)
        ]
        for login_id in over:
            self._forget(login_id)
        return len(over)

    async def add_signing_key(self, key: SigningKey, event: Event, *, retires: str | None = None) -> bool:
        self._check()
        signs = next((one.id for one in await self.list_signing_keys() if one.retired_at is None), None)
        if signs != retires:
            return False
        if retires is not None:
            self._signing_keys[retires] = replace(self._signing_keys[retires], retired_at=key.created_at)
        self._signing_keys[key.id] = key
        self._log(event)
        return True

    async def list_signing_keys(self) -> list[SigningKey]:
        self._check()
        return sorted(self._signing_keys.values(), key=lambda key: (key.created_at, key.id), reverse=True)

    async def delete_signing_key(self, key_id: str, event: Event) -> bool:
        self._check()
        if self._signing_keys.pop(key_id, None) is None:
            return False
        self._log(event)
        return True

    def _current(self, user: User) -> None:
        stored = self._users.get(user.id)
        if stored is None:
            raise NotFound(f"user {user.id} not found")
        if stored.version != user.version:
            raise StaleVersion()

    def _refuse_taken(self, user: User) -> None:
        for other in self._users.values():
            same = user.issuer is not None and (other.issuer, other.subject) == (user.issuer, user.subject)
            if other.id != user.id and (other.username == user.username or same):
                raise Conflict(f"the user {user.username!r} exists already, or another with that identity")

    def _end(self, login_id: str, at: datetime, reason: str) -> bool:
        login = self._logins.get(login_id)
        if login is None or login.ended_at is not None:
            return False
        self._logins[login_id] = replace(login, ended_at=at, reason=reason)
        return True

    def _forget(self, login_id: str) -> None:
        del self._logins[login_id]
        for token in [one.hash for one in self._refresh_tokens.values() if one.login == login_id]:
            del self._refresh_tokens[token]
