"""Passwords: what one must be, and its argon2id hash, made off the event loop; the users and logins services ask it.

A hash costs 64 MiB and some 50 ms on purpose, so that only a few are made at a time and a bounded number waits.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from atoll.domain.errors import InvalidInput, Unavailable

T = TypeVar("T")
PASSWORD_CHARS_MAX = 1_024
AT_ONCE = 2
WAITING_MAX = 64
STRANGERS_MAX = 48  # of those; the others are kept for who is known
STRANGERS_OF_ADDRESS_MAX = 8


class Passwords:
    """`chars_min` is the least length; the costs are those of RFC 9106 for little memory."""

    def __init__(
        self, *, chars_min: int = 12, time_cost: int = 3, memory_kib: int = 65_536, parallelism: int = 4
    ) -> None:
        self._chars_min = chars_min
        self._hasher = PasswordHasher(time_cost, memory_kib, parallelism, type=Type.ID)
        # Threads of their own: one whose caller went away hashes on, and is counted until it is done.
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")
        self._waiting = 0
        self._strangers: Counter[str] = Counter()  # of those who wait, by address
        self._nobodys: str | None = None

    def check(self, password: str, username: str) -> None:
        """InvalidInput, that never repeats it, for one that is easily guessed or cannot be kept."""
        if not self._chars_min <= len(password) <= PASSWORD_CHARS_MAX:
            raise InvalidInput(
                f"password must have {self._chars_min} to {PASSWORD_CHARS_MAX} characters", field="password"
            )
        if not _is_text(password):
            raise InvalidInput("password is not valid text", field="password")
        if len(set(password)) < 4 or username in password.lower():
            raise InvalidInput(
                "password must not hold the username, nor be a few characters over and over", field="password"
            )

    async def hash(self, password: str, *, stranger: str | None = None) -> str:
        """As a record keeps it. `stranger` is the address of somebody who is not known there: however many of those
        come, there are places left for others."""
        return await self._work(self._hasher.hash, password, stranger=stranger)

    async def verify(self, stored: str | None, password: str, *, stranger: str | None = None) -> bool:
        """Whether it is the password of that hash. Without a hash it takes as long, and is not. `stranger` as above."""
        if len(password) > PASSWORD_CHARS_MAX or not _is_text(password):
            password = ""  # none is empty
        if stored is None:
            if self._nobodys is None:
                self._nobodys = await self._work(self._hasher.hash, secrets.token_hex(), stranger=stranger)
            await self._work(self._matches, self._nobodys, password, stranger=stranger)
            return False
        return await self._work(self._matches, stored, password, stranger=stranger)

    def is_outdated(self, stored: str) -> bool:
        """Whether it was made with other costs than would be now."""
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _work(self, work: Callable[..., T], *arguments: str, stranger: str | None) -> T:
        """Its result, from another thread. Unavailable when too many wait for their turn."""
        if self._is_full(stranger):
            raise Unavailable("too many logins at a time: try again in a moment")
        self._waiting += 1
        if stranger is not None:
            self._strangers[stranger] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._waiting -= 1
            if stranger is not None:
                self._strangers[stranger] -= 1
                if not self._strangers[stranger]:
                    del self._strangers[stranger]

    def _is_full(self, stranger: str | None) -> bool:
        if stranger is None:
            return self._waiting >= WAITING_MAX
        if self._strangers[stranger] >= STRANGERS_OF_ADDRESS_MAX or self._strangers.total() >= STRANGERS_MAX:
            return True
        return self._waiting >= WAITING_MAX


def _is_text(password: str) -> bool:
    try:
        password.encode()
    except UnicodeEncodeError:
        return False
    return True
