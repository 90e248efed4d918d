"""The host template: programs and public settings of the host, nothing of its people, one layer for one content."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from atoll.runtimes.local import host_template
from atoll.runtimes.local.host_template import HostTemplate, build, learn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    return tmp_path / "templates"


def files(template: HostTemplate) -> list[Path]:
    return [Path(here) / name for here, _, names in os.walk(template.layer) for name in names]


def program(path: Path) -> Path:
    """A program that is not a script, installed there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(os.path.realpath(sys.executable), path)
    return path


def test_accounts_and_secrets_of_the_host_are_not_in_it(folder: Path) -> None:
    template = learn(str(folder), in_use=False)
    etc = Path(template.layer) / "etc"
    assert {line.split(":")[0] for line in (etc / "passwd").read_text().splitlines()} == {"root", "user", "nobody"}
    for name in (
        "shadow",
        "gshadow",
        "sudoers",
        "ssh",
        "machine-id",
        "krb5.keytab",
        "fstab.d",
        "environment",
        "netplan",
    ):
        assert not (etc / name).exists(), name
    assert not list(etc.rglob("*private*"))
    assert not list(etc.rglob("*.key"))
    for path in files(template):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISLNK(mode)
        assert not mode & (stat.S_ISUID | stat.S_ISGID)


def test_links_of_the_layer_lead_to_programs_or_stay_in_it(folder: Path) -> None:
    template = learn(str(folder), in_use=False)
    for path in files(template):
        if path.is_symlink():
            target = os.path.normpath(os.path.join("/" / path.relative_to(template.layer).parent, os.readlink(path)))
            assert target.startswith(("/usr", "/etc", "/bin", "/lib", "/sbin", "/proc", *template.binds)), (
                path,
                target,
            )


def test_nothing_of_homes_or_data_is_shown(folder: Path) -> None:
    import pwd

    template = learn(str(folder), in_use=False)
    homes = {user.pw_dir for user in pwd.getpwall()} | {
        "/home",
        "/root",
        "/var",
        "/srv",
        "/opt",
        "/etc",
        "/",
        "/run",
        "/tmp",
    }
    assert not set(template.binds) & (homes - {"/usr", "/bin", "/sbin", "/usr/sbin"})
    assert all(os.path.isdir(bind) for bind in template.binds)


def test_the_same_host_has_the_same_layer_and_an_older_one_goes_when_nobody_uses_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = learn(str(folder), in_use=False)
    inode = os.stat(first.layer).st_ino
    assert learn(str(folder), in_use=True).layer == first.layer
    assert os.stat(first.layer).st_ino == inode, "a layer below living sandboxes was replaced"
    monkeypatch.setitem(host_template._ETC_FILES, "motd", "new\n")
    second = learn(str(folder), in_use=True)
    assert second.layer != first.layer
    assert os.path.isdir(first.layer), "a layer below living sandboxes was removed"
    learn(str(folder), in_use=False)
    assert os.listdir(folder) == [os.path.basename(second.layer)]


def test_a_build_that_was_cut_short_is_begun_anew(folder: Path) -> None:
    (folder / "host.partial" / "etc").mkdir(parents=True)
    (folder / "host.partial" / "etc" / "shadow").write_text("left over")
    template = learn(str(folder), in_use=False)
    assert not (Path(template.layer) / "etc" / "shadow").exists()
    assert os.listdir(folder) == [os.path.basename(template.layer)]


def test_an_installation_elsewhere_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = tmp_path / "versions" / "20"
    program(prefix / "bin" / "node")
    for name in ("lib", "share", "README.md"):
        (prefix / name).mkdir()
    assert host_template._shared_folders(str(prefix)) == [str(prefix)]


def test_of_a_folder_that_holds_other_things_too_only_what_programs_need_is_shown(tmp_path: Path) -> None:
    for name in (".local", "stuff"):
        prefix = tmp_path / name
        program(prefix / "bin" / "node")
        for other in ("lib", "share", *(["secrets"] if name == "stuff" else [])):
            (prefix / other).mkdir()
        assert host_template._shared_folders(str(prefix)) == [str(prefix / "bin"), str(prefix / "lib")]


def test_a_program_in_somebodys_own_folder_is_not_taken_for_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    home = tmp_path / "home"
    program(home / "bin" / "zzz")
    monkeypatch.setattr(shutil, "which", lambda _name: str(home / "bin" / "zzz"))
    assert host_template._foreign_prefix("zzz") == str(home)
    entry = pwd.struct_passwd(("alice", "x", 1001, 1001, "", str(home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [entry])
    assert host_template._foreign_prefix("zzz") is None


def test_a_script_is_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "versions" / "bin" / "zzz"
    shim.parent.mkdir(parents=True)
    shim.write_text("#!/bin/sh\n")
    shim.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _name: str(shim))
    assert host_template._foreign_prefix("zzz") is None


def test_the_programs_are_found_on_its_path(folder: Path) -> None:
    template = build(str(folder), in_use=False)
    for name in ("sh", "env", "python3"):
        found = shutil.which(name, path=template.path)
        assert found is not None
        assert any(os.path.realpath(found).startswith(f"{bind}/") for bind in template.binds), (name, found)
