"""Random edits, revisions, restores, undo, forks and pushes equal a model of plain directories, byte for byte."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.domain.errors import NotFound
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.workspace import Reason
from atoll.testing.fake_runtime import FakeRuntime
from tests.services.conftest import ALICE, until

from .workshop import Workshop

Listing = dict[bytes, tuple[Any, ...]]

NAMES = (b"a", b"b", b"d", b"d/a", b"d/e", b"d/e/f", b"d-x", b"\xff\xfe", b"g")
CONTENTS = st.one_of(st.binary(max_size=40), st.integers(0, 3).map(lambda n: bytes([n]) * (2**20 + n)))
EDITS = st.tuples(
    st.sampled_from(("write", "append", "remove", "rename", "symlink", "link", "chmod", "touch", "sparse", "mkdir")),
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    CONTENTS,
)
STEPS = st.one_of(
    st.tuples(st.just("edit"), st.lists(EDITS, min_size=1, max_size=6)),
    st.tuples(st.just("edit"), st.lists(EDITS, min_size=1, max_size=6)),
    st.tuples(st.just("take"), st.none()),
    st.tuples(st.just("restore"), st.integers(1, 9)),
    st.tuples(st.just("restore path"), st.tuples(st.integers(1, 9), st.sampled_from(NAMES))),
    st.tuples(st.just("undo"), st.none()),
    st.tuples(st.just("fork"), st.none()),
    st.tuples(st.just("push"), st.tuples(st.sampled_from(NAMES), CONTENTS)),
    st.tuples(st.just("unmount"), st.none()),
    st.tuples(st.just("restart"), st.none()),
)


@dataclass
class Model:
    """What a workspace must be: each revision's files by number, and what is in its tree now."""

    name: str
    revisions: dict[int, Listing] = field(default_factory=dict)
    now: Listing = field(default_factory=dict)
    sandbox: str | None = None


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.tuples(st.integers(0, 2), STEPS), min_size=4, max_size=20))
def test_a_workspace_equals_plain_directories(steps: list[tuple[int, tuple[str, Any]]]) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[int, tuple[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as data:
        shop = Workshop(Path(data))
        await shop.blobs.start()
        await shop.start()
        try:
            await shop.create("w0")
            models = [Model("w0")]
            models[0].revisions[1] = models[0].now = await revision(shop, "w0", "HEAD")
            for which, (what, how) in steps:
                model = models[which % len(models)]
                await _step(shop, models, model, what, how)
                await _check(shop, model)
            for model in models:
                for number, listing in model.revisions.items():
                    assert await revision(shop, model.name, str(number)) == listing, (model.name, number)
        finally:
            await shop.close()
            await FakeRuntime(shop.host).shutdown()
            shop.host.trees.close()


async def _step(shop: Workshop, models: list[Model], model: Model, what: str, how: Any) -> None:
    service, name = shop.workspaces, model.name
    if what == "edit":
        folder = await _mounted(shop, model)
        for edit in how:
            apply(os.fsencode(folder), *edit)
        model.now = listing(folder)
    elif what == "take":
        await shop.take(name)
        assert await revision(shop, name, "HEAD") == model.now
    elif what == "restore":
        number = sorted(model.revisions)[how % len(model.revisions)]
        before = len(await shop.log(name))
        await service.restoring.restore(ALICE, name, str(number))
        for one in (await shop.log(name))[:-before]:
            if one.revision.reason is Reason.BEFORE_RESTORE:
                assert await revision(shop, name, one.revision.id) == model.now
        model.now = model.revisions[number]
        assert await revision(shop, name, "HEAD") == model.now
    elif what == "restore path":
        number, path = sorted(model.revisions)[how[0] % len(model.revisions)], how[1]
        try:
            await service.restoring.restore(ALICE, name, str(number), os.fsdecode(path))
        except NotFound:
            assert path not in model.revisions[number]
            model.now = await revision(shop, name, "HEAD")
            return
        before, model.now = model.now, await revision(shop, name, "HEAD")
        _check_path(model.now, before, model.revisions[number], path)
    elif what == "undo":
        await service.sync.head(ALICE, name)  # what is there now is the newest change
        head = (await shop.log(name))[0].revision
        if head.number == 1:
            return
        model.revisions[head.number] = model.now
        parent = await shop.records.get_revision(head.parent or "")
        assert parent is not None
        await service.restoring.undo(ALICE, name)
        model.now = model.revisions[parent.number]
    elif what == "fork" and len(models) < 3:
        fork = Model(f"w{len(models)}")
        await service.forks.fork(ALICE, name, fork.name)
        fork.revisions[1] = fork.now = model.now
        models.append(fork)
    elif what == "push":
        path, data = how
        here = await service.sync.head(ALICE, name)
        if path.count(b"/") and model.now.get(path.rpartition(b"/")[0], ("",))[0] != "d":
            return
        if model.now.get(path, ("f",))[0] != "f":
            return
        await shop.push(name, str(here.revision.number), {path: data})
        model.now = await revision(shop, name, "HEAD")
        assert model.now[path][-2] == data
    elif what == "unmount" and model.sandbox is not None:
        await shop.sandboxes.kill(ALICE, model.sandbox)
        model.sandbox = None
        await until(lambda: _settled(shop, name))
    elif what == "restart":
        await shop.restart()


async def _check(shop: Workshop, model: Model) -> None:
    """The tree is as it must be, and every new revision is what was there when it was taken."""
    if model.sandbox is not None:
        assert listing(await shop.folder(model.name)) == model.now
    for one in await shop.log(model.name):
        number = one.revision.number
        if number not in model.revisions:
            model.revisions[number] = await revision(shop, model.name, str(number))
    if model.sandbox is None:
        assert model.revisions[max(model.revisions)] == model.now


def _check_path(now: Listing, before: Listing, then: Listing, path: bytes) -> None:
    def within(listing: Listing) -> Listing:
        return {at: one[:-1] for at, one in listing.items() if at == path or at.startswith(path + b"/")}

    assert within(now) == within(then)
    parents = {path[:at] for at in range(len(path)) if path[at : at + 1] == b"/"} | {b""}
    for at, one in before.items():
        if at not in parents and at != path and not at.startswith(path + b"/"):
            above_is_restored = any(before[above][0] != "d" for above in parents if above in before)
            assert above_is_restored or now[at][:-1] == one[:-1], at


async def _settled(shop: Workshop, name: str) -> bool:
    found = await shop.records.find_workspace(ALICE.id, name)
    assert found is not None
    return found.tree_id is None or not shop.parts.trees.is_marked(found.tree_id)


async def _mounted(shop: Workshop, model: Model) -> Path:
    if model.sandbox is None:
        model.sandbox = (await shop.mount(model.name)).id
        folder = await shop.folder(model.name)
        assert listing(folder) == model.now
    return await shop.folder(model.name)


def apply(folder: bytes, what: str, name: bytes, other: bytes, data: bytes) -> None:
    path, target = os.path.join(folder, name), os.path.join(folder, other)
    try:
        if what == "write":
            Path(os.fsdecode(path)).write_bytes(data)
        elif what == "append":
            with open(path, "ab") as file:
                file.write(data[:100])
        elif what == "remove":
            os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        elif what == "rename":
            os.rename(path, target)
        elif what == "symlink":
            os.symlink(other, path)
        elif what == "link":
            os.link(path, target, follow_symlinks=False)
        elif what == "chmod":
            os.chmod(path, 0o600 + len(data) % 64) if not os.path.islink(path) else None
        elif what == "touch":
            os.utime(path, ns=(1, 10**18 + len(data)), follow_symlinks=False)
        elif what == "sparse":
            with open(path, "ab") as file:
                file.truncate(len(data) * 3)
        elif what == "mkdir":
            os.mkdir(path)
    except OSError:
        pass  # both sides of the comparison saw the same error


def listing(folder: Path) -> Listing:
    """path -> (kind, mode, mtime_ns, contents or target, the first name of its file)."""
    root = os.fsencode(folder)
    found: Listing = {}
    firsts: dict[int, bytes] = {}
    paths = [root]
    for at, folders, names in os.walk(root):
        paths += [os.path.join(at, one) for one in folders + names]
    for path in sorted(paths, key=lambda one: one[len(root) + 1 :]):
        info, name = os.lstat(path), path[len(root) + 1 :]
        if stat.S_ISLNK(info.st_mode):
            found[name] = ("l", 0, info.st_mtime_ns, os.readlink(path), name)
        elif stat.S_ISDIR(info.st_mode):
            found[name] = ("d", stat.S_IMODE(info.st_mode), info.st_mtime_ns, b"", name)
        else:
            first = firsts.setdefault(info.st_ino, name)
            data = Path(os.fsdecode(path)).read_bytes()
            found[name] = ("f", stat.S_IMODE(info.st_mode), info.st_mtime_ns, data, first)
    return found


async def revision(shop: Workshop, name: str, ref: str) -> Listing:
    """A revision in the form of `listing`."""
    contents = await shop.files(name, ref)
    found: Listing = {}
    for entry in await shop.entries(name, ref):
        if entry.kind is EntryKind.HARDLINK:
            found[entry.path] = found[entry.target]
        else:
            found[entry.path] = _listed(entry, contents)
    return found


def _listed(entry: Entry, contents: dict[bytes, bytes]) -> tuple[Any, ...]:
    data = contents[entry.path] if entry.kind is EntryKind.FILE else entry.target
    return (entry.kind.value, entry.mode, entry.mtime_ns, data, entry.path)
