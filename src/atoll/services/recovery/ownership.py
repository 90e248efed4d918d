"""Ownership: a second store belongs to one installation, that of one master key; a marker object in it says which.

Two that shared one would count and delete each other's backups. A machine that was restored has the same master key,
and so the store; another gets it only when its operator removes the marker.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Awaitable, Callable

from atoll.blobs.base import Blobs
from atoll.domain.errors import Conflict, Corrupt, InvalidInput, NotFound
from atoll.vaults.base import Vault

MARKER = "atoll-second-store"
VERSION = 1
CONTEXT = "second store"


async def claim(store: Blobs, vault: Vault) -> None:
    """Take the store for this vault's master key, unless it is taken. Conflict when another has it; Unavailable."""
    try:
        marker = await store.get(MARKER)
    except NotFound:
        wrapped = base64.b64encode(await vault.wrap(secrets.token_bytes(32), CONTEXT)).decode()
        await store.put(MARKER, json.dumps({"version": VERSION, "vault": vault.name, "key": wrapped}).encode())
        marker = await store.get(MARKER)  # of two at a time the later one's
    try:
        value = json.loads(marker)
        if value["version"] == VERSION and value["vault"] == vault.name:
            await vault.unwrap(base64.b64decode(value["key"], validate=True), CONTEXT)
            return
    except (ValueError, LookupError, TypeError, RecursionError, Corrupt):
        pass
    raise Conflict(
        f"the second store belongs to an installation with another master key: name another as blobs.copy_url, or "
        f"remove the object {MARKER} there to take it over"
    )


async def hand_over(
    store: Blobs, vault_of: Callable[[str], Awaitable[Vault]], target: Vault, older: Vault | None = None
) -> bool:
    """Bind the marker to another vault, or to a newer master key, where this installation has made it; whether it did.

    A marker of somebody else's stays, and `claim` refuses it.
    """
    try:
        value = json.loads(await store.get(MARKER))
        if value["version"] != VERSION:
            return False
        vault = await vault_of(value["vault"]) if value["vault"] != target.name else older
        if vault is None:
            return False
        key = await vault.unwrap(base64.b64decode(value["key"], validate=True), CONTEXT)
    except (NotFound, InvalidInput, Corrupt, ValueError, LookupError, TypeError, RecursionError):
        return False
    wrapped = base64.b64encode(await target.wrap(key, CONTEXT)).decode()
    await store.put(MARKER, json.dumps({"version": VERSION, "vault": target.name, "key": wrapped}).encode())
    return True
