"""The wrapped keys of MemoryRecords, wherever its parts keep them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from atoll.domain.errors import StaleVersion
from atoll.domain.wrapped_key import Wrapped, WrappedKey
from atoll.records.wrapped_keys import WrappedKeyRecords


class MemoryWrappedKeys(WrappedKeyRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    _check: Any
    _lineages: Any
    _secrets: Any
    _signing_keys: Any
    _audit_keys: Any
    _webhooks: Any
    _access_keys: Any

    async def count_wrapped_keys(self) -> Mapping[str, int]:
        return Counter(one.vault for one in await self.list_wrapped_keys())

    async def list_wrapped_keys(self) -> list[WrappedKey]:
        self._check()
        rows = [(kind, row, getattr(row, name)) for kind, name, row in self._wrapped_rows()]
        found = [WrappedKey(kind, row.id, row.vault, key) for kind, row, key in rows if key is not None]
        return sorted(found, key=lambda one: (list(Wrapped).index(one.kind), one.id))

    async def swap_wrapped_key(self, stored: WrappedKey, key: bytes, vault: str) -> None:
        self._check()
        for kind, name, row in self._wrapped_rows():
            if WrappedKey(kind, row.id, row.vault, getattr(row, name)) == stored:
                self._put_wrapped(kind, replace(row, **{name: key, "vault": vault}))
                return
        raise StaleVersion()

    def _wrapped_rows(self) -> list[tuple[Wrapped, str, Any]]:
        return [
            *((Wrapped.LINEAGE, "key", row) for row in self._lineages.values()),
            *((Wrapped.SECRET, "key", row) for row in self._secrets.values()),
            *((Wrapped.SIGNING_KEY, "wrapped", row) for row in self._signing_keys.values()),
            *((Wrapped.AUDIT_KEY, "key", row) for row in self._audit_keys),
            *((Wrapped.WEBHOOK, "secret", row) for row in self._webhooks.values()),
            *((Wrapped.ACCESS_KEY, "secret", row) for row in self._access_keys.values()),
        ]

    def _put_wrapped(self, kind: Wrapped, row: Any) -> None:
        if kind is Wrapped.AUDIT_KEY:
            self._audit_keys[:] = [row if one.id == row.id else one for one in self._audit_keys]
            return
        rows: dict[Wrapped, Any] = {
            Wrapped.LINEAGE: self._lineages,
            Wrapped.SECRET: self._secrets,
            Wrapped.SIGNING_KEY: self._signing_keys,
            Wrapped.WEBHOOK: self._webhooks,
            Wrapped.ACCESS_KEY: self._access_keys,
        }
        rows[kind][row.id] = row
