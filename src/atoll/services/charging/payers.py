"""Payers: who pays for a sandbox and for what is stored; charging asks it before and after the use alike."""

from __future__ import annotations

from atoll.domain.ids import GROUP_ID, KEY_ID
from atoll.domain.key import ApiKey, KeyKind
from atoll.domain.ledger import Budget, Payer
from atoll.domain.sandbox import Sandbox
from atoll.records.base import Records
from atoll.services.identity.principals import Principals
from atoll.services.key_lineage import ancestors


async def payer_of(records: Records, owner: str, credential: str = "") -> Payer:
    """Who pays for what `owner` has, by the key that it was made with. What a group has is paid by whose that key is,
    or by the group itself where no key has anything to do with it."""
    name = credential or owner
    key = await records.get_key(name) if KEY_ID.match(name) else None
    account = owner
    if key is not None and GROUP_ID.match(owner) and not GROUP_ID.match(key.owner):
        account = key.owner
    internal = key is not None and key.kind is not KeyKind.STANDARD
    internal = internal or await Principals(records).administers(account)
    budgets = [] if key is None or internal else await _budgets(records, key)
    return Payer(account, name, internal, tuple(budgets))


async def payer_of_sandbox(records: Records, sandbox: Sandbox) -> Payer:
    """Of a task's sandbox whoever pays for the task."""
    task = None if sandbox.spec.task is None else await records.get_task(sandbox.spec.task)
    if task is not None:
        return Payer(task.owner, task.credential, task.internal, task=task.id, thread=task.thread, sandbox=sandbox.id)
    found = await payer_of(records, sandbox.owner, sandbox.credential)
    return Payer(found.account, found.credential, found.internal, found.budgets, sandbox=sandbox.id)


async def _budgets(records: Records, key: ApiKey) -> list[Budget]:
    lineage = [key, *(await ancestors(key, records.get_key))]
    return [
        Budget(one.id, one.budget_micro_usd) for one in lineage if one is not None and one.budget_micro_usd is not None
    ]
