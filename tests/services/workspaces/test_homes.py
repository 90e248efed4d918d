"""The empty `.home` that the node makes in a sandbox's first workspace is no change of it."""

from __future__ import annotations

from tests.services.conftest import ALICE

from .workshop import Workshop


async def test_undo_takes_back_a_restore_after_which_a_process_ran(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    (await shop.folder("w") / "file").write_text("one")
    one = await shop.take()
    (await shop.folder("w") / "file").write_text("two")
    await shop.take()
    await shop.workspaces.restoring.restore(ALICE, "w", one.id)
    (await shop.folder("w") / ".home").mkdir()
    await shop.workspaces.restoring.undo(ALICE, "w")
    assert (await shop.folder("w") / "file").read_text() == "two"
    assert (await shop.reasons())[-2:] == ["restore", "undo"]


async def test_it_is_left_out_until_something_is_in_it(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    (folder / ".home").mkdir()
    created = await shop.take()
    assert created.number == 1
    (folder / "file").write_text("one")
    assert (await shop.take()).number == 2
    assert [entry.path for entry in await shop.entries("w")] == [b"", b"file"]
    (folder / ".home" / ".profile").write_text("x")
    assert (await shop.take()).number == 3
    assert [entry.path for entry in await shop.entries("w")] == [b"", b".home", b".home/.profile", b"file"]
    (folder / ".home" / ".profile").unlink()
    await shop.restart()
    assert (await shop.take()).number == 4
    assert [entry.path for entry in await shop.entries("w")] == [b"", b".home", b"file"]


async def test_it_stays_where_a_push_changes_the_tree(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    (folder / ".home").mkdir()
    head = await shop.take()
    await shop.push("w", head.id, {b"pushed": b"x"})
    assert (folder / ".home").is_dir()
    assert (await shop.take()).number == 2
    (folder / "file").write_text("y")
    assert (await shop.take()).number == 3
    assert [entry.path for entry in await shop.entries("w")] == [b"", b"file", b"pushed"]


async def test_other_changes_of_the_root_count(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    (folder / ".home").mkdir()
    folder.chmod(0o700)
    assert (await shop.take()).number == 2
