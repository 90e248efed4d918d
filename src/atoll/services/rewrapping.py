"""Rewrapping: every wrapped key of the records moved to the vault of the settings, or to its newest master key.

`atoll vault rewrap` calls it while no server runs. Each key moves in one step and by itself: cut short, what has moved
stays moved, and running it again does the rest.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from atoll.domain.access_key import access_key_context
from atoll.domain.errors import Conflict, Corrupt, StaleVersion
from atoll.domain.event import SYSTEM, Event
from atoll.domain.wrapped_key import Wrapped, WrappedKey
from atoll.records.base import Records
from atoll.services.audit.signing import key_context as audit_key_context
from atoll.services.secret_values import key_context as secret_context
from atoll.services.webhooks.webhooks import secret_context as webhook_context
from atoll.vaults.base import OtherMasterKey, Vault

AT_ONCE = 16
VaultOf = Callable[[str], Awaitable[Vault]]


class Rewrapping:
    """`vault_of` opens the vault of a name, as the settings describe it; `older` has the same name as `target` and an
    earlier master key."""

    def __init__(self, records: Records, target: Vault, vault_of: VaultOf, older: Vault | None = None) -> None:
        self._records = records
        self._target = target
        self._vault_of = vault_of
        self._older = older

    async def run(self) -> Mapping[str, int]:
        """How many of each kind are wrapped anew. Corrupt, naming it, for a key that no vault at hand can unwrap: the
        others have moved then. Unavailable when a vault does not answer."""
        moved: Counter[str] = Counter()
        failed: list[str] = []
        keys = await self._records.list_wrapped_keys()
        vaults = Counter(key.vault for key in keys)
        for at in range(0, len(keys), AT_ONCE):
            some = keys[at : at + AT_ONCE]
            for key, problem in zip(some, await asyncio.gather(*map(self._tried, some)), strict=True):
                if problem is None:
                    moved[key.kind.value] += 1
                else:
                    failed.append(f"{key.kind.value} {key.id}: {problem}")
        if moved:
            detail = {"vault": self._target.name, "from": dict(vaults), "keys": dict(moved)}
            await self._records.add_events([Event("vault.rewrapped", self._target.name, SYSTEM, SYSTEM, detail=detail)])
        if failed:
            raise Corrupt(f"{len(failed)} of {len(keys)} keys could not be moved, such as {'; '.join(failed[:3])}")
        return moved

    async def _tried(self, key: WrappedKey) -> str | None:
        """Move one; what is wrong with it, if something is."""
        try:
            await self._move(key)
        except Corrupt as error:
            return error.message
        return None

    async def _move(self, key: WrappedKey) -> None:
        context = await context_of(self._records, key)
        plain = await self._unwrapped(key, context)
        try:
            await self._records.swap_wrapped_key(key, await self._target.wrap(plain, context), self._target.name)
        except StaleVersion:
            raise Conflict(f"the key of {key.id} changed meanwhile: is a server running? Run it again") from None

    async def _unwrapped(self, key: WrappedKey, context: str) -> bytes:
        if key.vault != self._target.name:
            return await (await self._vault_of(key.vault)).unwrap(key.key, context)
        try:
            return await self._target.unwrap(key.key, context)
        except OtherMasterKey:
            if self._older is None:
                raise
            return await self._older.unwrap(key.key, context)


async def context_of(records: Records, key: WrappedKey) -> str:
    """What it is bound to."""
    if key.kind is Wrapped.SECRET:
        secret = await records.get_secret(key.id)
        if secret is None:
            raise Conflict(f"the secret {key.id} was deleted meanwhile: run it again")
        return secret_context(secret)
    if key.kind is Wrapped.AUDIT_KEY:
        return audit_key_context(key.id)
    if key.kind is Wrapped.WEBHOOK:
        return webhook_context(key.id)
    if key.kind is Wrapped.ACCESS_KEY:
        return access_key_context(key.id)
    return key.id


async def check_vault(records: Records, vault: Vault) -> None:
    """Before anybody is served. Conflict when another vault has wrapped some of the keys: what needs them would fail,
    and what is made from then on would need both."""
    counts = await records.count_wrapped_keys()
    others = {name: count for name, count in counts.items() if name != vault.name}
    if others:
        told = ", ".join(f"{count} by the vault {name!r}" for name, count in sorted(others.items()))
        raise Conflict(
            f"vault.kind is {vault.name}, and of the keys here are wrapped {told}: `atoll vault rewrap` moves them, "
            "with the settings of both vaults in place; or set vault.kind back"
        )
