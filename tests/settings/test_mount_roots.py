"""Which folders of the host sandboxes may mount: what the settings say, as the services take it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from atoll.domain.host_mount import MountRoot
from atoll.limits import service_limits
from atoll.settings import Settings


def settings(tmp_path: Path, roots: object) -> Settings:
    return Settings.model_validate({"data": tmp_path, "sandboxes": {"mount_roots": roots}})


@pytest.mark.parametrize("roots", ["/srv/a, /srv/b:rw", ["/srv/a", "/srv/b:rw"]], ids=["text", "list"])
def test_a_root_is_to_read_unless_it_says_otherwise_and_the_data_folder_is_never_one(
    tmp_path: Path, roots: object
) -> None:
    limits = service_limits(settings(tmp_path, roots))
    assert limits.mount_roots == (MountRoot("/srv/a"), MountRoot("/srv/b", writable=True))
    assert str(tmp_path) in limits.mounts_never


def test_by_default_there_is_none(tmp_path: Path) -> None:
    assert service_limits(Settings.model_validate({"data": tmp_path})).mount_roots == ()


@pytest.mark.parametrize(
    "root", ["/", "//", "relative", "", "/srv/../etc", "/proc", "/sys/fs", "/dev/shm", ":rw", "/:rw"]
)
def test_what_can_be_no_root(tmp_path: Path, root: str) -> None:
    with pytest.raises(ValidationError, match="a root is an absolute path"):
        settings(tmp_path, [root])


def test_a_root_to_read_does_not_lie_in_one_to_write(tmp_path: Path) -> None:
    for outer in ("/srv/a", "/srv/a/b"):
        with pytest.raises(ValidationError, match="/srv/a/b': it is to read, but lies in a root that is to write"):
            settings(tmp_path, ["/srv/a/b", f"{outer}:rw"])
    assert len(settings(tmp_path, ["/srv/a", "/srv/a/b:rw", "/srv/ab"]).sandboxes.mount_roots) == 3


def test_f17_whatever_path_the_settings_name_is_the_servers_own(tmp_path: Path) -> None:
    named = {
        "data": tmp_path,
        "database": {"url": "sqlite:////srv/db/records.db"},
        "blobs": {"url": "/srv/blobs", "copy_url": "file:///srv/a%20copy"},
        "workspaces": {"trees": "/srv/trees", "folder": "/srv/files", "snapshot_files": "/srv/snapshots"},
        "vault": {"key_file": "/srv/keys/master", "transit": {"token_file": "/srv/keys/token"}},
        "agents": {"store": "/srv/agents", "codex": {"folder": "/srv/codex"}},
        "network": {"ca_file": "/srv/ca.pem"},
    }
    never = set(service_limits(Settings.model_validate(named)).mounts_never)
    assert never >= {str(tmp_path), "/srv/db/records.db", "/srv/blobs", "/srv/a copy", "/srv/trees", "/srv/files"}
    assert never >= {
        "/srv/snapshots",
        "/srv/keys/master",
        "/srv/keys/token",
        "/srv/agents",
        "/srv/codex",
        "/srv/ca.pem",
    }
    unnamed = service_limits(Settings.model_validate({"data": tmp_path}))
    assert all(path.startswith(str(tmp_path)) for path in unnamed.mounts_never)
