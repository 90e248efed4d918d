"""Tree folders: a working tree as a plain folder, where only root could mount an image: bounded by nothing.

The node, which is then an ordinary user's, has errands call it (see trees.py).
"""

from __future__ import annotations

import os


class TreeFolders:
    """The trees in `folder`; owned by the one user that there is."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def clean(self) -> None:
        """Go on with removing what an earlier node had begun to remove."""
        for name in os.listdir(self._folder):
            if name.endswith(".removed"):
                _remove(f"{self._folder}/{name}")

    def mount_point(self, tree_id: str) -> str:
        return f"{self._folder}/{tree_id}"

    def make(self, tree_id: str, _quota_bytes: int, _inodes: int) -> None:
        os.mkdir(f"{self._folder}/{tree_id}", 0o755)

    def mount(self, tree_id: str) -> None:
        """It is where it is."""

    def unmount(self, tree_id: str) -> None:
        """It stays where it is."""

    def remove(self, tree_id: str) -> None:
        """Nobody uses it; a second call does nothing."""
        removed = f"{self._folder}/.{tree_id}.removed"
        try:
            os.rename(f"{self._folder}/{tree_id}", removed)
        except FileNotFoundError:
            return
        _remove(removed)

    def held(self, _tree_id: str, *, wait: bool) -> bool:
        """Without root no tree is changed for another under a program: who is in one is known."""
        return False

    def device(self, _tree_id: str) -> str | None:
        return None


def _remove(folder: str) -> None:
    """All of it, however deep it is: each folder in it is moved to the top before it is emptied."""
    waiting = [folder]
    count = 0
    while waiting:
        at = waiting[-1]
        os.chmod(at, 0o700)
        with os.scandir(at) as entries:
            inside = list(entries)
        found = False
        for entry in inside:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif at == folder:
                waiting.append(entry.path)
                found = True
            else:
                os.chmod(entry.path, 0o700)
                count += 1
                moved = f"{folder}/.moved-{count}-{os.urandom(8).hex()}"
                os.rename(entry.path, moved)
                waiting.insert(1, moved)
        if not found:
            waiting.remove(at)
            os.rmdir(at)
