"""Slots: ranges of user ids that no two sandboxes share, across nodes that come, go and die."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from atoll.runtimes.local import slots as module
from atoll.runtimes.local.slots import BLOCK, FIRST_UID, IDS, ROTATION, Slots, make_userns, uid_base

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes user namespaces: needs root")]


@pytest.fixture(autouse=True)
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "CLAIMS", str(tmp_path / "claims"))
    return tmp_path / "claims"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Slots]]:
    made: list[Slots] = []
    yield made
    for slots in made:
        slots.release()
        for fd in slots._userns.values():
            os.close(fd)


def node(nodes: list[Slots], folder: Path, *, with_sandboxes: bool = False) -> Slots:
    folder.mkdir(exist_ok=True)
    if with_sandboxes:
        (folder / "sess_000000000000").mkdir(exist_ok=True)
    nodes.append(Slots(str(folder)))
    return nodes[-1]


def test_ranges_are_above_everybody_elses_and_do_not_overlap() -> None:
    bases = [uid_base(slot) for slot in range(BLOCK * module.BLOCKS)]
    assert bases[0] == FIRST_UID
    assert all(later - earlier == IDS for earlier, later in pairwise(bases))
    assert bases[-1] + IDS < 2**32 - 1


def test_two_nodes_take_from_different_blocks(nodes: list[Slots], tmp_path: Path) -> None:
    one, other = node(nodes, tmp_path / "one"), node(nodes, tmp_path / "other")
    taken = [one.take() for _ in range(BLOCK)] + [other.take() for _ in range(BLOCK)]
    taken += [one.take(), other.take()]
    assert len(set(taken)) == len(taken)


def test_a_slot_is_not_taken_again_at_once(nodes: list[Slots], tmp_path: Path) -> None:
    slots = node(nodes, tmp_path / "one")
    first = slots.take()
    slots.give_back(first)
    assert first not in [slots.take() for _ in range(ROTATION)]
    assert slots.take() == first


def test_a_dead_nodes_block_is_another_s_only_when_no_sandbox_of_it_lives(nodes: list[Slots], tmp_path: Path) -> None:
    dead = node(nodes, tmp_path / "dead", with_sandboxes=True)
    held = dead.take()
    for fd in dead._locks:
        os.close(fd)  # as the kernel does
    dead._locks.clear()
    other = node(nodes, tmp_path / "other")
    assert other.take() // BLOCK != held // BLOCK
    (tmp_path / "dead" / "sess_000000000000").rmdir()
    third = node(nodes, tmp_path / "third")
    assert third.take() // BLOCK == held // BLOCK


def test_the_next_node_of_the_same_folder_takes_its_blocks_and_not_its_slots(
    nodes: list[Slots], tmp_path: Path
) -> None:
    dead = node(nodes, tmp_path / "one", with_sandboxes=True)
    held = {dead.take() for _ in range(10)}
    for fd in dead._locks:
        os.close(fd)
    dead._locks.clear()
    again = node(nodes, tmp_path / "one")
    again.reserve(held)
    taken = {again.take() for _ in range(BLOCK - 10)}
    assert not held & taken
    assert {slot // BLOCK for slot in taken} == {slot // BLOCK for slot in held}


def test_when_every_block_is_held_it_says_so(
    nodes: list[Slots], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCKS", 1)
    node(nodes, tmp_path / "one").take()
    with pytest.raises(OSError, match="every range of user ids is taken"):
        node(nodes, tmp_path / "other").take()


def test_a_block_is_given_back_on_release(nodes: list[Slots], tmp_path: Path, claims: Path) -> None:
    slots = node(nodes, tmp_path / "one", with_sandboxes=True)
    held = slots.take()
    slots.release()
    assert [claim.read_text() for claim in claims.iterdir()] == [""]
    assert node(nodes, tmp_path / "other").take() == held


def test_a_namespace_maps_its_range_and_belongs_to_its_own_user() -> None:
    import fcntl

    base = uid_base(BLOCK * module.BLOCKS - 1)
    fd = make_userns(base)
    try:
        owner = bytearray(4)
        fcntl.ioctl(fd, 0xB704, owner)  # NS_GET_OWNER_UID
        assert int.from_bytes(owner, "little") == base
        pid = os.fork()
        if pid == 0:
            try:
                module.sys.setns(fd, module.sys.CLONE_NEWUSER)
                maps = [Path(f"/proc/self/{name}").read_text().split() for name in ("uid_map", "gid_map")]
                os._exit(0 if maps == [["0", str(base), str(IDS)]] * 2 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(fd)


def test_namespaces_are_made_ahead_for_those_that_are_next(nodes: list[Slots], tmp_path: Path) -> None:
    slots = node(nodes, tmp_path / "one")
    slots.give_back(slots.take())
    for _ in range(3):
        assert slots.prepare(3)
    assert not slots.prepare(3)
    ready = set(slots._userns)
    assert {slots.take() for _ in range(3)} == ready


def test_what_a_dead_node_had_just_forked_is_waited_for(nodes: list[Slots], tmp_path: Path) -> None:
    slot = node(nodes, tmp_path / "one", with_sandboxes=True).take()
    child = os.fork()  # has the lock too, as one that was to become a sandbox
    if child == 0:
        time.sleep(0.3)
        os._exit(0)
    for fd in nodes.pop()._locks:
        os.close(fd)
    began = time.monotonic()
    node(nodes, tmp_path / "one").reserve({slot})
    assert time.monotonic() - began > 0.1
    os.waitpid(child, 0)


def test_a_range_that_another_server_has_is_named(
    nodes: list[Slots], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIMED_S", 0.05)
    slot = node(nodes, tmp_path / "one").take()
    with pytest.raises(OSError, match=rf"the range {slot // BLOCK} of user ids"):
        node(nodes, tmp_path / "other").reserve({slot})


def test_a_host_without_room_for_another_process_costs_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            make_userns(uid_base(1))
    assert len(os.listdir("/proc/self/fd")) == len(before)
