"""Budgets: what bounds a credential's spending besides its payer's account; tasks and charging ask it.

A key is bounded with all that it came from, and so is a sandbox with a capability: what has been handed on is spent
together.
"""

from __future__ import annotations

from collections.abc import Iterable

from atoll.domain.ids import KEY_ID, SANDBOX_ID
from atoll.domain.ledger import Budget
from atoll.records.base import Records
from atoll.services.identity.connected import CHAIN_MAX


async def budgets_of_keys(records: Records, lineage: Iterable[str]) -> list[Budget]:
    """Of those of the keys that have one, as it is now."""
    found = [await records.get_key(name) for name in lineage if KEY_ID.match(name)]
    return [
        Budget(key.id, key.budget_micro_usd) for key in found if key is not None and key.budget_micro_usd is not None
    ]


async def budgets_of_grants(records: Records, credential: str) -> list[Budget]:
    """Of a sandbox's capability, when the credential is one, and of the capabilities that this one came from."""
    budgets: list[Budget] = []
    for _ in range(CHAIN_MAX):
        sandbox = await records.get_sandbox(credential) if SANDBOX_ID.match(credential) else None
        grant = None if sandbox is None else sandbox.spec.capability
        if grant is None:
            break
        if grant.budget_micro_usd is not None:
            budgets.append(Budget(credential, grant.budget_micro_usd))
        credential = grant.credential
    return budgets
