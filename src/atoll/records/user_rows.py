"""Users, logins and what belongs to them as rows and back; `sql_users.py` calls it for every statement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.domain.user import Login, RefreshToken, SigningKey, User

Row = Mapping[Any, Any]  # as SQLAlchemy types its own

_USER_FIELDS = tuple(User.__dataclass_fields__)
_LOGIN_FIELDS = tuple(Login.__dataclass_fields__)
_TOKEN_FIELDS = tuple(RefreshToken.__dataclass_fields__)
_KEY_FIELDS = tuple(SigningKey.__dataclass_fields__)


def user_row(user: User) -> dict[str, Any]:
    return {name: getattr(user, name) for name in _USER_FIELDS}


def user_of(row: Row) -> User:
    return User(**row)


def login_row(login: Login) -> dict[str, Any]:
    return {name: getattr(login, name) for name in _LOGIN_FIELDS}


def login_of(row: Row) -> Login:
    return Login(**row)


def token_row(token: RefreshToken) -> dict[str, Any]:
    return {name: getattr(token, name) for name in _TOKEN_FIELDS}


def token_of(row: Row) -> RefreshToken:
    return RefreshToken(**row)


def signing_key_row(key: SigningKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in _KEY_FIELDS}


def signing_key_of(row: Row) -> SigningKey:
    return SigningKey(**row)
