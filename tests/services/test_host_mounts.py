"""F17: folders of the host that sandboxes may mount: below the roots of the settings, and never the server's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, Unsupported
from atoll.domain.host_mount import MountRoot
from atoll.runtimes.base import Capability
from atoll.services.host_mounts import found

from .conftest import ALICE, BOB, READER, House


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "roots" / "shared"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "text").write_bytes(b"of the host")
    return folder


async def opened(house: House, *roots: MountRoot, never: tuple[str, ...] = ()) -> str:
    house.limits = replace(house.limits, mount_roots=roots, mounts_never=never)
    await house.restart()
    return (await house.create(work_dir="/workspace")).id


async def test_f17_what_lies_below_a_root_is_mounted_to_read_by_its_alias(house: House, root: Path) -> None:
    sandbox_id = await opened(house, MountRoot(str(root)), MountRoot(str(root / "a" / "b"), writable=True))
    mount = house.sandboxes.host_mounts.mount
    for _ in range(2):
        await mount(ALICE, sandbox_id, "data", str(root / "a"))
    _, pieces = await house.sandboxes.files.read(ALICE, sandbox_id, "/workspace/data/text")
    assert [piece async for piece in pieces] == [b"of the host"]
    await mount(ALICE, sandbox_id, "own", str(root / "a" / "b"))  # the nearest root decides
    assert house.host.sandboxes[sandbox_id].files.of_host == {
        "/workspace/data": (root / "a", True),
        "/workspace/own": (root / "a" / "b", False),
    }


async def test_f17_nothing_else_is_mounted(house: House, root: Path, tmp_path: Path) -> None:
    data = root / "of-the-server"
    (data / "trees" / "somebodys").mkdir(parents=True)
    (root / "out").symlink_to("/etc")
    (root / "up").symlink_to(root.parent)
    (root / "in").symlink_to(data)
    (root.parent / "shared-not").mkdir()
    sandbox_id = await opened(house, MountRoot(str(root)), never=(str(data),))
    mount = house.sandboxes.host_mounts.mount
    for target in (
        "/",
        "/etc",
        "/etc/passwd",
        "/nowhere",
        str(root.parent),
        str(root.parent / "shared-not"),
        f"{root}/../shared-not",
        f"{root}/out",
        f"{root}/up/shared-not",
        str(root),  # the server's own lies in it
        str(data),
        str(data / "trees" / "somebodys"),
        f"{root}/in/trees/somebodys",
        "a",
        "",
        f"{root}/a\0",
        f"{root}/" + "x" * 5000,
        "/proc/self/root/etc",
    ):
        with pytest.raises(Forbidden, match=r"^mount target must be under the allowed base directory$"):
            await mount(ALICE, sandbox_id, "x", target)
    for missing in (root / "nowhere", root / "a" / "text"):
        with pytest.raises(NotFound, match=r"^mount target missing$"):
            await mount(ALICE, sandbox_id, "x", str(missing))
    await mount(ALICE, sandbox_id, "x", f"{root}/up/shared/a")  # wherever the way leads, it ends below the root
    for alias in ("", "..", ".", "a/b", "-a", "a\n", "x" * 65):
        with pytest.raises(InvalidInput) as bad:
            await mount(ALICE, sandbox_id, alias, str(root / "a"))
        assert bad.value.field == "alias"


async def test_f17_without_roots_nobody_mounts_anything_and_others_find_no_sandbox(house: House, root: Path) -> None:
    sandbox_id = await opened(house)
    mount = house.sandboxes.host_mounts.mount
    with pytest.raises(Forbidden, match=r"^mount target must be .*: sandboxes\.mount_roots names none$"):
        await mount(ALICE, sandbox_id, "x", str(root))
    with pytest.raises(NotFound, match="session not found"):
        await mount(BOB, sandbox_id, "x", str(root))
    with pytest.raises(Forbidden):
        await mount(READER, sandbox_id, "x", str(root))


async def test_a_runtime_that_mounts_nothing_of_the_host_says_so(
    house: House, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = await opened(house, MountRoot(str(root)))
    runtime = type(house.runtime)
    able = house.runtime.capabilities
    monkeypatch.setattr(runtime, "capabilities", property(lambda _: able - {Capability.HOST_MOUNTS}))
    with pytest.raises(Unsupported, match="cannot mount folders of this host"):
        await house.sandboxes.host_mounts.mount(ALICE, sandbox_id, "x", str(root / "a"))


def test_a_root_may_be_reached_by_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert found(f"{link}/a", [MountRoot(str(link))], ()) == (MountRoot(str(root)), "a")
    assert found(str(root), [MountRoot(str(link))], ()) == (MountRoot(str(root)), ".")


def test_f17_a_root_that_is_named_twice_is_one_to_read(root: Path) -> None:
    twice = [MountRoot(str(root), writable=True), MountRoot(str(root))]
    for roots in (twice, twice[::-1]):
        assert found(str(root / "a"), roots, ()) == (MountRoot(str(root)), "a")


def test_a_target_has_at_most_the_bytes_of_a_path(root: Path) -> None:
    longest = f"{root}/{'x/' * 4096}"[:4095] + "x"
    for target, kind in ((longest, NotFound), (longest + "x", Forbidden)):
        with pytest.raises(kind):
            found(target, [MountRoot(str(root))], ())


async def test_f17_a_target_that_cannot_be_looked_at_is_refused_like_any_other(
    house: House, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = await opened(house, MountRoot(str(root)))
    mount = house.sandboxes.host_mounts.mount
    with pytest.raises(Forbidden, match="mount target must be"):
        await mount(ALICE, sandbox_id, "x", f"{root}/\ud800")
    (root / "gone").symlink_to("a")

    def unreadable(_path: object) -> str:
        raise FileNotFoundError(2, "as of /proc/PID/exe of a thread of the kernel")

    monkeypatch.setattr("os.readlink", unreadable)
    with pytest.raises(Forbidden, match="mount target must be"):
        found(f"{root}/gone", [MountRoot(str(root))], ())


def test_f17_a_root_to_read_is_not_written_through_another_that_a_link_puts_around_it(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root / "a")
    roots = [MountRoot(str(root), writable=True), MountRoot(str(link))]
    assert found(f"{root}/a/b", roots, ()) == (MountRoot(str(root / "a")), "b")
    with pytest.raises(Forbidden, match="mount target must be"):
        found(str(root), roots, ())
