"""Payers: who pays for a sandbox and for what is stored; charging asks it before and after the use alike."""

from __future__ import annotations

from dataclasses import replace

from atoll.domain.ids import GROUP_ID, KEY_ID
from atoll.domain.key import KeyKind
from atoll.domain.ledger import Budget, Payer
from atoll.domain.sandbox import Sandbox
from atoll.records.base import Records
from atoll.services.budgets import budgets_of_grants, budgets_of_keys
from atoll.services.identity.principals import Principals
from atoll.services.key_lineage import ancestors
from atoll.services.tasks.money import payer_of as payer_of_task


async def payer_of(records: Records, owner: str, credential: str = "", maker: str = "") -> Payer:
    """Who pays for what `owner` has, by the key that it was made with. What a group has is paid by whose that key is,
    or by the group itself where no key has anything to do with it. What a sandbox made by its capability, the `maker`,
    lies within that one's budget too, and within those that it came from."""
    name = credential or owner
    key = await records.get_key(name) if KEY_ID.match(name) else None
    account = owner
    if key is not None and GROUP_ID.match(owner) and not GROUP_ID.match(key.owner):
        account = key.owner
    internal = key is not None and key.kind is not KeyKind.STANDARD
    internal = internal or await Principals(records).administers(account)
    if internal:
        return Payer(account, name, internal)
    budgets: list[Budget] = []
    if key is not None:
        lineage = [key, *(one for one in await ancestors(key, records.get_key) if one is not None)]
        budgets += await budgets_of_keys(records, [one.id for one in lineage])
    budgets += await budgets_of_grants(records, maker)
    return Payer(account, name, internal, tuple(budgets))


async def payer_of_sandbox(records: Records, sandbox: Sandbox) -> Payer:
    """Of a task's sandbox whoever pays for the task; of one that a sandbox made, within its maker's budget too."""
    task = None if sandbox.spec.task is None else await records.get_task(sandbox.spec.task)
    if task is not None:
        return replace(await payer_of_task(records, task), sandbox=sandbox.id)
    grant = sandbox.spec.capability
    maker = sandbox.spec.maker or ("" if grant is None else grant.credential)
    return replace(await payer_of(records, sandbox.owner, sandbox.credential, maker), sandbox=sandbox.id)
