"""Sharing: whom one can share with, and by what names a workspace of another is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.domain.sandbox import SandboxSpec
from atoll.domain.workspace import Permission, WorkspaceMount
from atoll.services.keys import Keys
from atoll.services.workspaces.access import NoWorkspace
from tests.principals import introduce
from tests.services.conftest import ALICE, BOB
from tests.services.workspaces.workshop import Workshop

CAROL = replace(ALICE, id="key_ca0010000000", name="alice")  # names of keys are not unique
NOBODY = "key_000000000000"


async def share(shop: Workshop, *targets: str) -> None:
    await shop.workspaces.sharing.share(ALICE, "w", targets, Permission.WRITE)


@pytest.mark.parametrize("target", [NOBODY, "bob", "", "key_b0b000000000\n", "\ud800", "x" * 300])
async def test_only_a_key_of_this_server_can_be_shared_with(shop: Workshop, target: str) -> None:
    await shop.create()
    with pytest.raises(
        InvalidInput, match="principal must be the name or id of a user or a group of yours, or the id of a key"
    ) as refused:
        await share(shop, BOB.id, target)
    assert refused.value.field == "principal"
    assert repr(target[:128]) in refused.value.message
    assert await shop.workspaces.sharing.list(ALICE, "w") == []  # nor with those that exist


async def test_a_revoked_key_cannot_be_shared_with_and_its_share_can_be_taken_back(shop: Workshop) -> None:
    await shop.create()
    await share(shop, BOB.id)
    await Keys(shop.records).revoke(BOB.id)
    with pytest.raises(InvalidInput, match="principal"):
        await share(shop, BOB.id)
    await shop.workspaces.sharing.revoke(ALICE, "w", BOB.id)
    assert await shop.workspaces.sharing.list(ALICE, "w") == []


async def test_anothers_workspace_is_named_by_owner_and_name(shop: Workshop) -> None:
    made = await shop.create()
    await share(shop, BOB.id)
    for ref in (f"{ALICE.id}/w", "alice/w"):
        found = await shop.workspaces.get(BOB, ref)
        assert (found.workspace.id, found.permission, found.owner_name) == (
            made.workspace.id, Permission.WRITE, "alice",
        )  # fmt: skip
        sandbox = await shop.sandboxes.create(BOB, SandboxSpec(workspaces=(WorkspaceMount(ref),)))
        assert sandbox.spec.workspaces[0].workspace == made.workspace.id
    assert (await shop.workspaces.get(ALICE, f"{ALICE.id}/w")).workspace.id == made.workspace.id
    for ref in (f"{BOB.id}/w", "bob/w", "alice/x", f"{NOBODY}/w", "/w", "alice/"):
        with pytest.raises(NoWorkspace):
            await shop.workspaces.get(BOB, ref)


async def test_a_name_alone_never_means_anothers(shop: Workshop) -> None:
    """Else whoever shares a workspace under a likely name gets what was meant for one's own."""
    await shop.create()
    await share(shop, BOB.id)
    with pytest.raises(NotFound, match=rf"workspace not found: 'w' \(shared with you: {ALICE.id}/w\)"):
        await shop.workspaces.get(BOB, "w")
    own = await shop.workspaces.create(BOB, "w")
    assert (await shop.workspaces.get(BOB, "w")).workspace.id == own.workspace.id
    assert (await shop.workspaces.get(BOB, "alice/w")).workspace.id != own.workspace.id


async def test_an_owners_name_that_two_keys_have_is_told_with_ids(shop: Workshop) -> None:
    await introduce(shop.records, CAROL)
    one, other = await shop.create(), await shop.workspaces.create(CAROL, "w")
    await share(shop, BOB.id)
    await shop.workspaces.sharing.share(CAROL, "w", [BOB.id], Permission.READ)
    with pytest.raises(Conflict) as refused:
        await shop.workspaces.get(BOB, "alice/w")
    assert one.workspace.id in refused.value.message and other.workspace.id in refused.value.message
    assert (await shop.workspaces.get(BOB, f"{CAROL.id}/w")).workspace.id == other.workspace.id
