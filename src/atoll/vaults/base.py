"""The vault contract: wrap and unwrap data keys under a master key that never leaves the vault.

Services call it; `atoll.testing.vaults_conformance` holds every adapter to these docstrings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from atoll.domain.errors import Corrupt

KEY_BYTES_MIN, KEY_BYTES_MAX = 16, 64  # of the keys that a vault wraps


class OtherMasterKey(Corrupt):
    """It was wrapped by another master key than this vault's."""


class Vault(ABC):
    """Who keeps the master key. All methods may be called concurrently, between `start` and `close`."""

    name: ClassVar[str]  # stored with each wrapped key

    @abstractmethod
    async def start(self) -> None:
        """Get ready. Unavailable when the vault does not answer; InvalidInput when what it needs is missing."""

    @abstractmethod
    async def close(self) -> None:
        """Forget what is in memory; a second call does nothing."""

    @abstractmethod
    async def wrap(self, key: bytes, context: str) -> bytes:
        """The key (16 to 64 bytes, else InvalidInput) encrypted and bound to `context`. Twice gives two texts."""

    @abstractmethod
    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """The key of `wrap`. Corrupt when it, or its context, is not what was wrapped by this master key;
        OtherMasterKey where that can be told apart."""
