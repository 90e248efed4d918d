"""FakeTrees: working trees of a fake machine: real folders with real keepers, which fake sandboxes see as files."""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tempfile
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from atoll.domain.errors import Conflict, Forbidden, InvalidInput, NotFound
from atoll.domain.process import FileEntry
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.sidekick.keeper_client import KeeperClient
from atoll.testing.fake_files import FakeFiles
from atoll.testing.local_keeper import LocalKeeper


class FakeTrees:
    """Trees by their ids. They are removed, and their keepers ended, with `close`, or when nobody has this any more."""

    def __init__(self) -> None:
        self.quotas: dict[str, Quota] = {}
        self.linger = False  # whether the machine is slow to let go of what nobody uses
        self._keepers: dict[str, LocalKeeper] = {}
        self.close = weakref.finalize(self, _close, self._keepers)

    def make(self, tree_id: str, quota: Quota) -> None:
        if tree_id in self._keepers:
            raise Conflict(f"tree {tree_id} exists")
        self._keepers[tree_id] = LocalKeeper(tempfile.mkdtemp(prefix="atoll-tree-"))
        self.quotas[tree_id] = quota

    def list(self) -> list[str]:
        return list(self._keepers)

    def remove(self, tree_id: str) -> None:
        keeper = self._keepers.pop(tree_id, None)
        if keeper is not None:
            _remove(keeper)

    def folder(self, tree_id: str) -> Path:
        """Where it lies, for tests that change it as a tenant would. NotFound."""
        return Path(self._keeper(tree_id).folder)

    def keeper(self, tree_id: str) -> KeeperClient:
        """NotFound."""
        return self._keeper(tree_id).client

    def end_keepers(self) -> None:
        """As a reboot does: the trees stay."""
        for keeper in self._keepers.values():
            keeper.close()

    def _keeper(self, tree_id: str) -> LocalKeeper:
        keeper = self._keepers.get(tree_id)
        if keeper is None:
            raise NotFound(f"tree {tree_id} does not exist")
        return keeper


def _close(keepers: dict[str, LocalKeeper]) -> None:
    while keepers:
        _remove(keepers.popitem()[1])


def _remove(keeper: LocalKeeper) -> None:
    keeper.close()
    shutil.rmtree(keeper.folder, ignore_errors=True)


class TreeFiles(FakeFiles):
    """Files in memory, with trees mounted: below a mount's path they are those of the tree's folder."""

    def __init__(self, trees: FakeTrees, mounts: tuple[WorkspaceMount, ...]) -> None:
        super().__init__()
        self._trees = trees
        self.mounts = list(mounts)
        self.kept: dict[str, str] = {}  # process -> tree that it works in though that is not mounted any more
        self.of_host: dict[str, tuple[Path, bool]] = {}  # path -> folder of the host, and whether to read only
        for mount in mounts:
            trees.folder(mount.tree_id)  # NotFound
            super().make_dir(mount.path)

    def keep(self, process_id: str, cwd: str, path: str) -> None:
        """What is mounted at `path` is about to be swapped: a process whose current folder is in it stays there."""
        for mount in self.mounts:
            if mount.path == path and f"{cwd}/".startswith(f"{path}/"):
                self.kept.setdefault(process_id, mount.tree_id)

    def swap(self, path: str, tree_id: str, *, read_only: bool) -> None:
        """NotFound for the mount or the tree."""
        self._trees.folder(tree_id)
        for at, mount in enumerate(self.mounts):
            if mount.path == path:
                self.mounts[at] = replace(mount, tree_id=tree_id, read_only=read_only)
                return
        raise NotFound(f"nothing is mounted at {path}")

    def mount_host(self, folder: Path, path: str, *, read_only: bool) -> None:
        """NotFound for the folder, or when a link leads there; Conflict for the path."""
        if not folder.is_dir() or folder.resolve() != folder:
            raise NotFound(f"{folder} is no folder")
        if path in self.of_host:
            if self.of_host[path] != (folder, read_only):
                raise Conflict(f"{path} has another mount")
            return
        try:
            self.make_dir(path)
        except (Conflict, InvalidInput) as error:
            raise Conflict(error.message) from None
        self.of_host[path] = (folder, read_only)

    def read(self, path: str) -> tuple[FileEntry, bytes]:
        there = self._there(path)
        if there is None:
            return super().read(path)
        with _told(path):
            if there.is_dir():
                raise InvalidInput(f"path {path!r}: is a directory", field="path")
            return _entry(there), there.read_bytes()

    def check_writable(self, path: str) -> None:
        there = self._there(path, writing=True)
        if there is None:
            super().check_writable(path)
        elif there.is_dir():
            raise InvalidInput(f"path {path!r}: is a directory", field="path")

    def write(self, path: str, content: bytes, mode: int | None = None) -> int:
        there = self._there(path, writing=True)
        if there is None:
            return super().write(path, content, mode)
        with _told(path):
            kept = there.stat().st_mode if there.exists() else 0o644
            there.parent.mkdir(parents=True, exist_ok=True)
            beside = there.with_name(f".atoll-{os.urandom(8).hex()}")
            beside.write_bytes(content)
            beside.chmod((kept if mode is None else mode) & 0o777)
            beside.replace(there)
        return len(content)

    def list(self, path: str) -> list[FileEntry]:
        there = self._there(path)
        if there is None:
            return super().list(path)
        with _told(path):
            return [_entry(child) for child in sorted(there.iterdir())]

    def stat(self, path: str) -> FileEntry:
        there = self._there(path)
        if there is None:
            return super().stat(path)
        with _told(path):
            return _entry(there)

    def make_dir(self, path: str) -> None:
        there = self._there(path, writing=True)
        if there is None:
            super().make_dir(path)
            return
        with _told(path):
            there.mkdir(parents=True, exist_ok=True)

    def link(self, path: str, target: str) -> None:
        there = self._there(path, writing=True)
        if there is None:
            super().link(path, target)
            return
        with _told(path):
            there.unlink(missing_ok=True)
            there.symlink_to(target)

    def remove(self, path: str, *, recursive: bool) -> None:
        there = self._there(path, writing=True)
        if there is None:
            super().remove(path, recursive=recursive)
            return
        with _told(path):
            if there.is_symlink() or not there.is_dir():
                there.unlink()
            elif recursive:
                shutil.rmtree(there)
            else:
                there.rmdir()

    def move(self, source: str, destination: str) -> None:
        before, after = self._there(source, writing=True), self._there(destination, writing=True)
        if before is None and after is None:
            super().move(source, destination)
        elif before is None or after is None:
            raise InvalidInput(f"from {source!r}: cannot move between file systems", field="from")
        else:
            with _told(source):
                after.parent.mkdir(parents=True, exist_ok=True)
                before.rename(after)

    def is_dir(self, path: str) -> bool:
        there = self._there(path)
        return super().is_dir(path) if there is None else there.is_dir()

    def _there(self, path: str, *, writing: bool = False) -> Path | None:
        """What the path is in a tree's folder; None when it is in no tree."""
        if not getattr(self, "mounts", None) and not getattr(self, "of_host", None):
            return None
        plain = posixpath.normpath("/" + path.lstrip("/"))
        for at, (folder, read_only) in self.of_host.items():
            if plain == at or plain.startswith(at + "/"):
                if writing and read_only:
                    raise Forbidden(f"path {path!r}: read-only file system")
                return folder / plain[len(at) :].lstrip("/")
        for mount in sorted(self.mounts, key=lambda mount: len(mount.path), reverse=True):
            if plain == mount.path or plain.startswith(mount.path.rstrip("/") + "/"):
                if writing and mount.read_only:
                    raise Forbidden(f"path {path!r}: read-only file system")
                return self._trees.folder(mount.tree_id) / plain[len(mount.path) :].lstrip("/")
        return None


def _entry(path: Path) -> FileEntry:
    info = path.lstat()
    kind = "directory" if stat.S_ISDIR(info.st_mode) else "symlink" if stat.S_ISLNK(info.st_mode) else "file"
    return FileEntry(path.name, kind, info.st_size, stat.S_IMODE(info.st_mode), info.st_mtime)


@contextmanager
def _told(path: str) -> Generator[None]:
    """What the system says, as a sidekick tells it."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"path {path!r}: no such file or directory") from None
    except NotADirectoryError:
        raise InvalidInput(f"path {path!r}: is not a directory", field="path") from None
    except OSError as error:
        raise Conflict(f"path {path!r}: {error.strerror}") from None
