"""The secrets' part of MemoryRecords, in a dictionary."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.secret import Secret
from atoll.records.secrets import SecretRecords


class MemorySecrets(SecretRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._secrets: dict[str, Secret] = {}

    async def add_secret(self, secret: Secret, event: Event, *, quota: int | None = None) -> None:
        self._check()
        self._hold_owner(secret.owner)
        own = [known for known in self._secrets.values() if known.owner == secret.owner]
        if quota is not None and len(own) >= quota:
            raise QuotaExceeded(f"secret limit reached ({len(own)}/{quota})")
        if secret.id in self._secrets or any(known.name == secret.name for known in own):
            raise Conflict(f"a secret {secret.name} exists already")
        self._secrets[secret.id] = secret
        self._log(event)

    async def swap_secret(self, secret: Secret, event: Event | None) -> Secret:
        self._check()
        self._check_secret(secret)
        after = self._secrets[secret.id] = replace(secret, version=secret.version + 1)
        self._log(event)
        return after

    async def get_secret(self, secret_id: str) -> Secret | None:
        self._check()
        return self._secrets.get(secret_id)

    async def find_secret(self, owner: str, name: str) -> Secret | None:
        self._check()
        found = (known for known in self._secrets.values() if (known.owner, known.name) == (owner, name))
        return next(found, None)

    async def list_secrets(
        self,
        *,
        owners: Collection[str] | None = None,
        within: Collection[str] | None = None,
        after: tuple[str, str] | None = None,
        limit: int = 1000,
    ) -> list[Secret]:
        self._check()
        found = [
            known
            for known in self._secrets.values()
            if (owners is None or known.owner in owners)
            and (within is None or known.id in within or known.owner in within)
            and (after is None or (known.name, known.id) > after)
        ]
        return sorted(found, key=lambda known: (known.name, known.id))[:limit]

    async def delete_secret(self, secret: Secret, event: Event) -> None:
        self._check()
        self._check_secret(secret)
        del self._secrets[secret.id]
        self._log(event)

    def _check_secret(self, secret: Secret) -> None:
        stored = self._secrets.get(secret.id)
        if stored is None:
            raise NotFound(f"secret {secret.id} does not exist")
        if stored.version != secret.version:
            raise StaleVersion()

    # what the rest of MemoryRecords has

    def _hold_owner(self, owner: str) -> None:
        raise NotImplementedError

    def _check(self) -> None:
        raise NotImplementedError

    def _log(self, event: Event | None) -> None:
        raise NotImplementedError
