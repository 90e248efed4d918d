"""Where workspaces may be mounted."""

from __future__ import annotations

import pytest

from atoll.domain.errors import InvalidInput
from atoll.domain.mounts import MOUNTS_MAX, check_mounts, clean_path
from atoll.domain.workspace import WorkspaceMount


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("/workspace", "/workspace"),
        ("//workspace/./lib/", "/workspace/lib"),
        ("/home/user", "/home/user"),
        ("/home/user/project", "/home/user/project"),
        ("/mnt", "/mnt"),
        ("/tmp/x", "/tmp/x"),
        ("/srv/ünïcode and blanks", "/srv/ünïcode and blanks"),
    ],
)
def test_paths_that_are_nobodys(path: str, cleaned: str) -> None:
    assert clean_path(path) == cleaned


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "//", "/.", "workspace", "./x", "/a/../b", "/..", "/proc", "/proc/1/root", "/dev/shm", "/sys/x",
        "/usr/local/x", "/bin", "/lib64/x", "/etc/x", "/root", "/var/lib/x", "/run/x", "/home", "/home/other",
        "/home/user2", "/tmp", "//tmp/", "/a\0b", "/a\nb", "/\ud800", "/" + "a" * 256, "/" + "a/" * 600,
    ],
)  # fmt: skip
def test_paths_that_are_the_systems_or_none(path: str) -> None:
    with pytest.raises(InvalidInput, match=r"^workspaces\.path") as caught:
        clean_path(path)
    assert caught.value.field == "workspaces.path"


def test_no_path_twice_and_not_too_many() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        check_mounts((WorkspaceMount("a", "/x"), WorkspaceMount("b", "/x/")))
    many = [WorkspaceMount("a", f"/x{at}") for at in range(MOUNTS_MAX + 1)]
    with pytest.raises(InvalidInput, match="at most"):
        check_mounts(many)
    assert [mount.path for mount in check_mounts(many[:2])] == ["/x0", "/x1"]
