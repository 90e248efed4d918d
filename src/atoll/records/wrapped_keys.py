"""The records contract's part on keys that a vault has wrapped, all of them alike: for when the vault changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from atoll.domain.wrapped_key import WrappedKey


class WrappedKeyRecords(ABC):
    """A part of `Records`; what holds for all of its methods stands there. Shredded keys are none."""

    @abstractmethod
    async def count_wrapped_keys(self) -> Mapping[str, int]:
        """How many each vault has wrapped, by its name."""

    @abstractmethod
    async def list_wrapped_keys(self) -> list[WrappedKey]:
        """Every one, by kind and id."""

    @abstractmethod
    async def swap_wrapped_key(self, stored: WrappedKey, key: bytes, vault: str) -> None:
        """The same key, wrapped by another vault, in place of what is stored; nothing of the tenant's changes, so there
        is no event. StaleVersion when the stored one is not that any more, or gone."""
