"""The blobs contract: immutable objects under keys, on a disk or in an object store.

Services call it; `atoll.testing.blobs_conformance` holds every adapter to these docstrings. Keys are made of the
characters `A-Za-z0-9._/-`, at most 512; no part between slashes is empty, `.`, `..` or longer than 255, and no key is a
folder of another.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from atoll.domain.errors import InvalidInput

PIECE_BYTES = 2**20  # of what `read` and `write` stream
KEY_CHARACTERS_MAX = 512
_PART = re.compile(r"[A-Za-z0-9._-]{1,255}")


def check_key(key: str) -> str:
    """The key as it is; InvalidInput when it is none."""
    parts = key.split("/")
    if len(key) > KEY_CHARACTERS_MAX or any(part in (".", "..") or not _PART.fullmatch(part) for part in parts):
        raise InvalidInput(f"{key[:80]!r} is not the key of a blob", field="key")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix as it is; InvalidInput when no key could begin with it."""
    check_key(f"{prefix}x")
    return prefix


@dataclass(frozen=True, slots=True)
class Blob:
    """An object as a listing shows it."""

    key: str
    bytes: int
    modified_at: datetime


class Blobs(ABC):
    """A store of objects. All methods may be called concurrently, between `start` and `close`.

    A failure that a retry may mend is retried within, with exponential backoff; then it raises Unavailable. Nothing of
    a failed or cancelled write is ever visible under its key.
    """

    @abstractmethod
    async def start(self) -> None:
        """Connect. Unavailable when the store does not answer, InvalidInput when it refuses our credentials."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections; a second call does nothing."""

    @abstractmethod
    async def ping(self) -> None:
        """Unavailable when the store does not answer."""

    @abstractmethod
    async def put(self, key: str, data: bytes) -> None:
        """Store it whole and durably (on a disk: file synced, renamed, folder synced) before this returns.

        A key that exists is replaced in one step.
        """

    @abstractmethod
    async def write(self, key: str, pieces: AsyncIterator[bytes]) -> int:
        """Store a stream, as `put`, in memory that does not grow with it; its size. Large ones go by multipart."""

    @abstractmethod
    async def get(self, key: str) -> bytes:
        """All of it. NotFound; Corrupt when what lies there is none (on a disk: a link, a device)."""

    @abstractmethod
    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """That part of it. NotFound; also when it is shorter than that: a truncated object is no object. Corrupt."""

    @abstractmethod
    def read(self, key: str) -> AsyncIterator[bytes]:
        """Its bytes in pieces. NotFound, Corrupt at the first."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove it; no error when it does not exist."""

    @abstractmethod
    def list(self, prefix: str) -> AsyncIterator[Blob]:
        """Every object whose key begins with `prefix`, in no special order."""
