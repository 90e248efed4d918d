"""F17: how a folder of the host is reached that is to be mounted in a sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from atoll.domain.errors import Conflict
from atoll.runtimes.local.box import STATE_NAME, Box
from atoll.runtimes.local.host_mounts import HostMounts, open_source
from atoll.runtimes.local.mounting import Mounting
from atoll.sidekick.protocol import Refused
from tests.runtimes.local.test_trees import Host, host

__all__ = ["host"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a folder of the host needs root")
WANTED = {"root": "/srv", "below": ".", "path": "/workspace/srv", "read_only": True}


@pytest.fixture
def root() -> Iterator[Path]:
    with TemporaryDirectory() as folder:  # itself for its owner alone, which is above the root
        root = Path(folder).resolve() / "root"
        for name in ("open/in", "kept/in", "ours/in"):
            (root / name).mkdir(parents=True)
        (root / "kept").chmod(0o700)
        (root / "ours").chmod(0o750)
        (root / "link").symlink_to("open")
        yield root


@pytest.mark.parametrize("below", [".", "open", "open/in", "kept", "./open//in"])
def test_f17_what_everybody_may_reach_below_a_root_is_opened(root: Path, below: str) -> None:
    found = open_source(str(root), below, 1)
    assert os.path.samestat(os.fstat(found), (root / below).stat())
    os.close(found)
    assert list((root / "kept").iterdir()), "the process is root again"


@pytest.mark.parametrize("below", ["kept/in", "ours/in", "link/in", "link", "nowhere"])
def test_f17_what_others_may_not_reach_is_missing(root: Path, below: str) -> None:
    groups = os.getgroups()
    os.setgroups([])  # as an errand does
    try:
        with pytest.raises(Refused, match="mount target missing"):
            open_source(str(root), below, 1)
    finally:
        os.setgroups(groups)
    assert list((root / "kept").iterdir()), "the process is root again"


def test_f17_a_root_that_others_may_not_search_hides_what_is_below_it(root: Path) -> None:
    root.chmod(0o700)
    with pytest.raises(Refused, match="mount target missing"):
        open_source(str(root), "open", 1)
    os.close(open_source(str(root), ".", 1))


class Errands(Mounting):
    """Does nothing in sandboxes; `meanwhile` is asked for each errand how it ended."""

    def __init__(self, meanwhile: Callable[[Box], Refused | None]) -> None:
        super().__init__(None, None, None)  # type: ignore[arg-type]
        self._meanwhile = meanwhile

    def inside(self, box: Box, work: Any, then: Callable[[Any, Refused | None], None]) -> None:
        then(None, self._meanwhile(box))


def mounted(mounting: Mounting, box: Box, **other: Any) -> list[Refused | None]:
    """What was answered to who mounts."""
    answers: list[Refused | None] = []
    HostMounts(mounting, object()).mount(box, WANTED | other, answers.append)  # type: ignore[arg-type]
    return answers


def test_a_mount_is_written_down_before_it_is_made_and_forgotten_when_it_was_not(tmp_path: Path) -> None:
    box = Box("sess_0", str(tmp_path), 1, "none")
    written: list[Any] = []

    def cannot(box: Box) -> Refused:
        written.extend(json.loads((tmp_path / STATE_NAME).read_text())["host_mounts"])
        return Refused("unavailable", "no")

    (refused,) = mounted(Errands(cannot), box)
    assert refused is not None and refused.code == "unavailable"
    assert [one["path"] for one in written] == ["/workspace/srv"]
    assert json.loads((tmp_path / STATE_NAME).read_text())["host_mounts"] == []
    assert mounted(Errands(lambda _: None), box) == [None]
    assert json.loads((tmp_path / STATE_NAME).read_text())["host_mounts"] == [WANTED] == box.host_mounts


def test_a_state_that_cannot_be_written_is_told_and_others_have_their_turn(tmp_path: Path) -> None:
    box = Box("sess_0", str(tmp_path / "nowhere"), 1, "none")
    mounting = Errands(lambda _: None)
    (refused,) = mounted(mounting, box)
    assert refused is not None and refused.code == "unavailable"
    box.folder = str(tmp_path)
    assert mounted(mounting, box) == [None]


def test_a_host_without_room_for_a_user_namespace_is_told_and_others_have_their_turn(tmp_path: Path) -> None:
    class Slots:
        def userns(self, _slot: int) -> int:
            raise OSError("unshare: user namespaces are not available")

    box = Box("sess_0", str(tmp_path), 1, "none")
    box.pid = os.getpid()
    mounting = Mounting(None, None, Slots())  # type: ignore[arg-type]
    for _ in range(2):
        (refused,) = mounted(mounting, box)
        assert refused is not None and "user namespaces" in refused.message
    assert box.host_mounts == []


async def test_the_next_node_counts_what_its_predecessor_mounted_and_forgets_what_it_did_not(host: Host) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "root"
        (root / "data").mkdir(parents=True)
        for one in (root, root / "data"):
            one.chmod(0o777)

        async def mount(below: str, name: str) -> None:
            await host.runtime.mount_host(sandbox_id, str(root), below, f"/home/user/{name}", read_only=True)

        sandbox_id = await host.make()
        await mount("data", "made")
        state = host.data / "run" / "sandboxes" / sandbox_id / STATE_NAME
        told = json.loads(state.read_text())
        (made,) = told["host_mounts"]
        told["host_mounts"] = [made | {"making": True}, made | {"making": True, "path": "/home/user/never"}]
        state.write_text(json.dumps(told))  # as a node leaves it that dies before it hears of either
        await host.kill_node()
        await mount("data", "made")
        with pytest.raises(Conflict):
            await mount(".", "made")
        await mount(".", "never")
        assert await host.said(sandbox_id, "cut -d' ' -f5 /proc/self/mountinfo | grep /home/user/ | sort") == (
            "/home/user/made\n/home/user/never\n"
        )
        await host.runtime.destroy(sandbox_id)
