"""F17: how a folder of the host is reached that is to be mounted in a sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from atoll.runtimes.local.host_mounts import open_source
from atoll.sidekick.protocol import Refused

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a folder of the host needs root")


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
