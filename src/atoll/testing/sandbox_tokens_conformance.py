"""What every records store must do with sandbox tokens and with names of sandboxes, as tests: subclass as
`RecordsConformance`, with its `stores`.

Each test holds one sentence of the contract; those that are called `of_concurrent` race.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.domain.errors import Conflict, NameTaken, NotFound, QuotaExceeded
from atoll.domain.ids import new_id
from atoll.domain.key import KeyKind, Scope
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.domain.sandbox_token import SandboxToken, TokenKind
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, sandbox, together


def token(of: str = "sess_000000000000", kind: TokenKind = TokenKind.SESSION, *, age_s: float = 0) -> SandboxToken:
    at = T0 - timedelta(seconds=age_s)
    return SandboxToken(
        id=new_id("stk"),
        hash=secrets.token_hex(32),
        sandbox=of,
        kind=kind,
        owner="key_owner",
        maker="user_maker",
        credential="key_credential",
        credential_hash="0" * 64,
        login="",
        account_kind=KeyKind.STANDARD,
        plan="",
        scopes=frozenset({Scope.READ, Scope.EXECUTE}),
        created_at=at,
        expires_at=at + timedelta(seconds=60),
        description="for a friend",
        parent="stk_of_its_maker",
    )


async def added(records: Records, one: SandboxToken, *, quota: int = 100) -> SandboxToken:
    await records.add_sandbox_token(one, event(one.id, "sandbox_token.created"), quota=quota)
    return one


def named(name: str = "dev", namespace: str | None = "team") -> Sandbox:
    return replace(sandbox(), name=name, namespace=namespace)


class SandboxTokenRecordsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    async def test_a_sandbox_token_is_returned_as_it_was_stored(self, stores: tuple[Records, Records]) -> None:
        one = await added(stores[0], token())
        assert await stores[1].get_sandbox_token(one.id) == one == await stores[1].find_sandbox_token(one.hash)
        assert await stores[1].get_sandbox_token("stk_0") is None
        assert await stores[1].find_sandbox_token("0" * 64) is None
        assert [told.action for told in await stores[1].list_events(target=one.id)] == ["sandbox_token.created"]

    async def test_sandbox_tokens_are_listed_oldest_first_by_kind(self, stores: tuple[Records, Records]) -> None:
        # the older one first: adding a token forgets those of its sandbox that have expired by then
        old, new = await added(stores[0], token(age_s=5)), await added(stores[0], token())
        await added(stores[0], token(kind=TokenKind.ACCESS))
        await added(stores[0], token("sess_111111111111"))
        assert await stores[1].list_sandbox_tokens(old.sandbox, TokenKind.SESSION) == [old, new]

    async def test_the_same_sandbox_token_twice_is_a_conflict(self, stores: tuple[Records, Records]) -> None:
        one = await added(stores[0], token())
        with pytest.raises(Conflict):
            await added(stores[1], replace(token(), id=one.id))
        with pytest.raises(Conflict):
            await added(stores[1], replace(token(), hash=one.hash))
        assert await stores[0].get_sandbox_token(one.id) == one

    async def test_a_deleted_sandbox_token_is_gone_once(self, stores: tuple[Records, Records]) -> None:
        one, other = await added(stores[0], token()), await added(stores[0], token())
        await stores[0].delete_sandbox_token(one.id, event(one.id, "sandbox_token.revoked"))
        with pytest.raises(NotFound):
            await stores[1].delete_sandbox_token(one.id, event(one.id, "sandbox_token.revoked"))
        assert await stores[1].get_sandbox_token(one.id) is None
        assert await stores[1].get_sandbox_token(other.id) == other
        actions = sorted(told.action for told in await stores[1].list_events(target=one.id))
        assert actions == ["sandbox_token.created", "sandbox_token.revoked"]

    async def test_expired_sandbox_tokens_are_pruned(self, stores: tuple[Records, Records]) -> None:
        old = await added(stores[0], token("sess_222222222222", age_s=120))
        new = await added(stores[0], token())
        assert await stores[1].prune_sandbox_tokens(T0) == 1
        assert await stores[1].get_sandbox_token(old.id) is None
        assert await stores[1].get_sandbox_token(new.id) == new

    async def test_expired_sandbox_tokens_make_room_for_new_ones(self, stores: tuple[Records, Records]) -> None:
        await added(stores[0], token(age_s=60), quota=1)
        new = await added(stores[1], token(), quota=1)
        with pytest.raises(QuotaExceeded):
            await added(stores[0], token(), quota=1)
        assert await stores[0].list_sandbox_tokens(new.sandbox, TokenKind.SESSION) == [new]

    async def test_of_concurrent_tokens_as_many_are_added_as_the_quota_says(
        self, stores: tuple[Records, Records]
    ) -> None:
        done = await together(*(added(stores[number % 2], token(), quota=3) for number in range(8)))
        assert sum(isinstance(one, SandboxToken) for one in done) == 3
        assert all(isinstance(one, SandboxToken | QuotaExceeded) for one in done)

    async def test_a_link_is_redeemed_whole_or_not_at_all(self, stores: tuple[Records, Records]) -> None:
        link, other = await added(stores[0], token(kind=TokenKind.MAGIC)), await added(stores[0], token())

        async def redeem(made: SandboxToken, quota: int = 100, link_id: str = link.id) -> None:
            told = [event(link_id, "sandbox_token.redeemed"), event(made.id, "sandbox_token.created")]
            await stores[1].redeem_sandbox_token(link_id, made, told, quota=quota)

        with pytest.raises(QuotaExceeded):
            await redeem(token(), quota=1)
        with pytest.raises(Conflict):
            await redeem(replace(token(), hash=other.hash))
        assert await stores[0].get_sandbox_token(link.id) == link
        made = token()
        await redeem(made)
        with pytest.raises(NotFound):
            await redeem(token())
        assert await stores[0].get_sandbox_token(link.id) is None
        left = await stores[0].list_sandbox_tokens(link.sandbox, TokenKind.SESSION)
        assert {one.id: one for one in left} == {other.id: other, made.id: made}
        for one, last in ((link, "sandbox_token.redeemed"), (made, "sandbox_token.created")):
            assert [told.action for told in await stores[0].list_events(target=one.id)][-1] == last

    async def test_of_concurrent_redemptions_of_a_link_one_is_done(self, stores: tuple[Records, Records]) -> None:
        link = await added(stores[0], token(kind=TokenKind.MAGIC))
        made = [token() for _ in range(6)]
        done = await together(
            *(
                stores[number % 2].redeem_sandbox_token(link.id, one, [event(one.id)], quota=100)
                for number, one in enumerate(made)
            )
        )
        assert sum(isinstance(one, NotFound) for one in done) == 5
        assert len(await stores[0].list_sandbox_tokens(link.sandbox, TokenKind.SESSION)) == 1

    # names of sandboxes

    async def test_a_name_in_a_namespace_is_one_of_a_kind_until_its_sandbox_has_ended(
        self, stores: tuple[Records, Records]
    ) -> None:
        one = named()
        await stores[0].add_sandbox(one, event(one.id))
        again = named()
        with pytest.raises(NameTaken):
            await stores[1].add_sandbox(again, event(again.id))
        elsewhere, unnamed = named(namespace="other"), named(namespace=None)
        somebodys = replace(named(), owner="key_of_another")
        for other in (elsewhere, unnamed, somebodys):
            await stores[1].add_sandbox(other, event(other.id))
        assert [found.id for found in await stores[1].find_named_sandboxes((one.owner,), "team", "dev")] == [one.id]
        assert [found.id for found in await stores[1].find_named_sandboxes((one.owner,), "team", None)] == [one.id]
        assert await stores[1].find_named_sandboxes((one.owner,), "team", "de\0v") == []
        ended = await stores[0].swap_sandbox(one.to(SandboxState.KILLED), None)
        await stores[1].add_sandbox(again, event(again.id))
        with pytest.raises(NameTaken):  # it would come to life beside its successor
            await stores[0].swap_sandbox(replace(ended, ended_at=None), None)
        assert (await stores[0].get_sandbox(one.id) or one).ended_at is not None
        assert {found.id for found in await stores[0].find_named_sandboxes((one.owner,), "team", "dev")} == {
            one.id,
            again.id,
        }

    async def test_of_concurrent_sandboxes_of_one_name_one_is_made(self, stores: tuple[Records, Records]) -> None:
        asked = [named() for _ in range(6)]
        adding = [stores[number % 2].add_sandbox(one, event(one.id)) for number, one in enumerate(asked)]
        done = await together(*adding)
        assert sum(isinstance(one, NameTaken) for one in done) == 5
        assert len(await stores[0].find_named_sandboxes((asked[0].owner,), "team", "dev")) == 1
