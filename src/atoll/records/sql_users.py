"""Users, their logins and the keys that sign tokens, in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.user import Login, RefreshToken, SigningKey, User
from atoll.domain.workspace import Workspace
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.schema import api_keys, logins, refresh_tokens, signing_keys, users
from atoll.records.sql_chain import append_event, append_events
from atoll.records.sql_groups import leave_groups, owned
from atoll.records.sql_leavings import forget_leavings
from atoll.records.sql_store import SqlStore, event_values, lock_owner, not_swapped, storable, swap
from atoll.records.sql_store import swap_values as values_to_swap
from atoll.records.sql_workspaces import SWAP_WORKSPACE
from atoll.records.user_rows import (
    login_of,
    login_row,
    signing_key_of,
    signing_key_row,
    token_of,
    token_row,
    user_of,
    user_row,
)
from atoll.records.users import UserRecords
from atoll.records.workspace_rows import workspace_row

PRUNE_ROWS = 200

_ADD_USER = Prepared(insert(users).inline())
_GET_USER = Prepared(select(users).where(users.c.id == bindparam("wanted")))
_FIND_USER = Prepared(select(users).where(users.c.username == bindparam("wanted")))
_FIND_SUBJECT = Prepared(select(users).where(users.c.issuer == bindparam("of"), users.c.subject == bindparam("wanted")))
_HOLD_USER = Prepared(select(users).where(users.c.id == bindparam("wanted")).with_for_update())
_HOLD_USER_SHARED = Prepared(select(users).where(users.c.id == bindparam("wanted")).with_for_update(read=True))
_SWAP_USER = swap(users, {"created_at"})
_ADD_LOGIN = Prepared(insert(logins).inline())
_GET_LOGIN = Prepared(select(logins).where(logins.c.id == bindparam("wanted")))
_END_LOGIN = Prepared(
    update(logins)
    .where(logins.c.id == bindparam("of"), logins.c.ended_at.is_(None))
    .values(ended_at=bindparam("at"), reason=bindparam("why"))
)
_END_LOGINS = Prepared(
    update(logins)
    .where(logins.c.owner == bindparam("of"), logins.c.ended_at.is_(None))
    .values(ended_at=bindparam("at"), reason=bindparam("why"))
)
_ADD_TOKEN = Prepared(insert(refresh_tokens).inline())
_GET_TOKEN = Prepared(select(refresh_tokens).where(refresh_tokens.c.hash == bindparam("wanted")))
_USE_TOKEN = Prepared(
    update(refresh_tokens)
    .where(refresh_tokens.c.hash == bindparam("of"), refresh_tokens.c.used_at.is_(None))
    .values(used_at=bindparam("at"))
)
_ADD_SIGNING_KEY = Prepared(insert(signing_keys).inline())


class SqlUsers(SqlStore, UserRecords):
    """See `UserRecords` for what each method does."""

    async def add_user(self, user: User, event: Event) -> None:
        row, happened = storable(user_row(user)), event_values(event)

        def add(connection: Connection) -> None:
            try:
                _ADD_USER.run(connection, row)
            except IntegrityError as error:
                raise _taken(user) from error
            append_event(connection, happened)

        await self._commit(add)

    async def swap_user(self, user: User, event: Event | None, *, end_logins: str | None = None) -> User:
        after = replace(user, version=user.version + 1)
        row = values_to_swap(user_row(after), user.version)
        happened = None if event is None else event_values(event)

        def change(connection: Connection) -> None:
            try:
                swapped = _SWAP_USER.run(connection, row)
            except IntegrityError as error:
                raise _taken(user) from error
            if swapped != 1:
                raise not_swapped(connection, users, "user", user.id)
            if happened is not None:
                if end_logins is not None:
                    _END_LOGINS.run(connection, {"of": user.id, "at": happened["at"], "why": end_logins})
                append_event(connection, happened)

        await self._commit(change)
        return after

    async def get_user(self, user_id: str) -> User | None:
        return await self._one(_GET_USER, user_of, wanted=user_id)

    async def find_user(self, username: str) -> User | None:
        return await self._one(_FIND_USER, user_of, wanted=username)

    async def find_subject(self, issuer: str, subject: str) -> User | None:
        return await self._one(_FIND_SUBJECT, user_of, of=issuer, wanted=subject)

    async def list_users(self, *, after: str = "", limit: int = 1000) -> list[User]:
        query = select(users).where(users.c.username > after).order_by(users.c.username).limit(limit)
        return await self._all(query, user_of)

    async def delete_user(self, user: User, event: Event, *, takes: tuple[Workspace, Event] | None = None) -> None:
        happened = event_values(event)
        taken = None if takes is None else event_values(takes[1])
        their_logins = select(logins.c.id).where(logins.c.owner == user.id)

        def remove(connection: Connection) -> None:
            found = _HOLD_USER.first(connection, {"wanted": user.id})
            if found is None:
                raise NotFound(f"user {user.id} not found")
            if found["version"] != user.version:
                raise StaleVersion(f"user {user.id} changed since it was read")
            if takes is not None:
                gone = replace(takes[0], version=takes[0].version + 1)
                row = values_to_swap(workspace_row(gone), takes[0].version)
                if SWAP_WORKSPACE.run(connection, row) != 1:
                    raise StaleVersion(f"workspace {gone.id} changed since it was read")
            if theirs := owned(connection, user.id, keys=False):
                raise Conflict(f"user {user.id} owns {theirs}: end or delete those first, or disable the user")
            leave_groups(connection, user.id)
            forget_leavings(connection, user.id)
            connection.execute(delete(refresh_tokens).where(refresh_tokens.c.login.in_(their_logins)))
            connection.execute(delete(logins).where(logins.c.owner == user.id))
            connection.execute(
                update(api_keys)
                .where(api_keys.c.owner == user.id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=happened["at"], version=api_keys.c.version + 1)
            )
            connection.execute(delete(users).where(users.c.id == user.id))
            append_events(connection, [one for one in (taken, happened) if one is not None])

        await self._commit(remove)

    # logins

    async def add_login(self, login: Login, token: RefreshToken, event: Event, *, kept: int, user_version: int) -> None:
        row, first, happened = storable(login_row(login)), storable(token_row(token)), event_values(event)
        lasting = (logins.c.owner == login.owner) & logins.c.ended_at.is_(None)
        newest = select(logins.c.id).where(lasting).order_by(logins.c.created_at.desc(), logins.c.id.desc()).limit(kept)

        def add(connection: Connection) -> None:
            lock_owner(connection, Lock.LOGINS, login.owner)
            user = _HOLD_USER_SHARED.first(connection, {"wanted": login.owner})
            if user is None:
                raise NotFound(f"user {login.owner} not found")
            if user["version"] != user_version:
                raise StaleVersion(f"user {login.owner} changed since it was read")
            try:
                _ADD_LOGIN.run(connection, row)
                _ADD_TOKEN.run(connection, first)
            except IntegrityError as error:
                raise Conflict(f"login {login.id} exists already") from error
            connection.execute(
                update(logins)
                .where(lasting, logins.c.id.not_in(newest))
                .values(ended_at=login.created_at, reason="evicted")
            )
            append_event(connection, happened)

        await self._commit(add)

    async def get_login(self, login_id: str) -> Login | None:
        return await self._one(_GET_LOGIN, login_of, wanted=login_id)

    async def rotate_refresh_token(
        self, used: str, new: RefreshToken, at: datetime, event: Event, replayed: Event
    ) -> Login | None:
        row, happened, misused = storable(token_row(new)), event_values(event), event_values(replayed)

        def rotate(connection: Connection) -> Login | None:
            token = _GET_TOKEN.first(connection, {"wanted": used})
            found = None if token is None else _GET_LOGIN.first(connection, {"wanted": token["login"]})
            if token is None or found is None:
                return None
            login = login_of(found)
            if token["login"] != new.login or not login.usable(at):
                return None
            # Before its age: whoever has a token that was used is no less suspicious for being late.
            if token["used_at"] is None and token["expires_at"] <= at:
                return None
            # The row's lock decides between those who come at once; the second finds it used.
            if _USE_TOKEN.run(connection, {"of": used, "at": at}) == 1:
                _ADD_TOKEN.run(connection, row)
                append_event(connection, happened)
                return login
            if _END_LOGIN.run(connection, {"of": login.id, "at": at, "why": "replayed"}):
                append_event(connection, misused)
            return None

        return await self._commit(rotate)

    async def find_refresh_token(self, token_hash: str) -> tuple[RefreshToken, Login, User] | None:
        def find(connection: Connection) -> tuple[RefreshToken, Login, User] | None:
            token = _GET_TOKEN.first(connection, {"wanted": token_hash})
            login = None if token is None else _GET_LOGIN.first(connection, {"wanted": token["login"]})
            user = None if login is None else _GET_USER.first(connection, {"wanted": login["owner"]})
            if token is None or login is None or user is None:
                return None
            return token_of(token), login_of(login), user_of(user)

        return await self._database.read(find)

    async def end_login(self, login_id: str, at: datetime, reason: str, event: Event) -> bool:
        happened = event_values(event)

        def end(connection: Connection) -> bool:
            if _END_LOGIN.run(connection, {"of": login_id, "at": at, "why": reason}) != 1:
                return False
            append_event(connection, happened)
            return True

        return await self._commit(end)

    async def prune_logins(self, before: datetime) -> int:
        over = (logins.c.ended_at < before) | (logins.c.expires_at < before)

        def prune(connection: Connection) -> int:
            some = list(connection.execute(select(logins.c.id).where(over).limit(PRUNE_ROWS)).scalars())
            connection.execute(delete(refresh_tokens).where(refresh_tokens.c.login.in_(some)))
            return connection.execute(delete(logins).where(logins.c.id.in_(some))).rowcount

        pruned = 0
        while True:
            gone = await self._database.write(prune)
            pruned += gone
            if gone < PRUNE_ROWS:
                return pruned

    # keys that sign tokens

    async def add_signing_key(self, key: SigningKey, event: Event, *, retires: str | None = None) -> bool:
        row, happened = storable(signing_key_row(key)), event_values(event)
        signs = select(signing_keys.c.id).where(signing_keys.c.retired_at.is_(None))
        newest = signs.order_by(signing_keys.c.created_at.desc(), signing_keys.c.id.desc()).limit(1)

        def add(connection: Connection) -> bool:
            lock_owner(connection, Lock.LOGINS, "signing keys")
            if connection.execute(newest).scalar() != retires:
                return False
            if retires is not None:
                old = update(signing_keys).where(signing_keys.c.id == retires)
                connection.execute(old.values(retired_at=key.created_at))
            _ADD_SIGNING_KEY.run(connection, row)
            append_event(connection, happened)
            return True

        return await self._commit(add)

    async def list_signing_keys(self) -> list[SigningKey]:
        query = select(signing_keys).order_by(signing_keys.c.created_at.desc(), signing_keys.c.id.desc())
        return await self._all(query, signing_key_of)

    async def delete_signing_key(self, key_id: str, event: Event) -> bool:
        happened = event_values(event)

        def remove(connection: Connection) -> bool:
            if connection.execute(delete(signing_keys).where(signing_keys.c.id == key_id)).rowcount != 1:
                return False
            append_event(connection, happened)
            return True

        return await self._commit(remove)


def _taken(user: User) -> Conflict:
    return Conflict(f"the user {user.username!r} exists already, or another with that identity")
