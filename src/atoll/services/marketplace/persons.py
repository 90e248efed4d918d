"""Persons: who stands behind a credential, where a group's sandbox asks; the marketplace counts and charges by it.

Anybody makes groups and sandboxes at will: what counts each principal once must not count those.
"""

from __future__ import annotations

from atoll.domain.ids import GROUP_ID, KEY_ID, SANDBOX_ID
from atoll.domain.principal import Principal
from atoll.domain.worker import Worker
from atoll.records.base import Records

STEPS_MAX = 16  # sandboxes made by sandboxes, and keys by keys


async def person_of(records: Records, principal: Principal) -> str:
    """The principal, or for a group whose the key is that its sandbox came from, or the user who made that; the group
    itself where nobody is known."""
    name = principal.id if not GROUP_ID.match(principal.id) else principal.credential
    for _ in range(STEPS_MAX):
        if SANDBOX_ID.match(name):
            sandbox = await records.get_sandbox(name)
            grant = None if sandbox is None else sandbox.spec.capability
            above = None if grant is None else grant.credential
        elif name != principal.id and KEY_ID.match(name):
            key = await records.get_key(name)
            if key is None or key.owner == name:
                return name
            above = key.parent if GROUP_ID.match(key.owner) else key.owner
        else:
            return name
        if above is None:
            break
        name = above
    return principal.id


async def is_author(records: Records, worker: Worker, principal: Principal, person: str) -> bool:
    """Whether it is theirs, or a group's that they belong to."""
    author = worker.author
    if author in (principal.id, person):
        return True
    return GROUP_ID.match(author) is not None and await records.get_member(author, person) is not None
