"""Which paths stay out of a sync: `.gitignore` and `.atollignore` at every level, `--exclude`, and the home folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from pathspec import GitIgnoreSpec

from atoll.domain.tree import text

IGNORE_FILES = (b".gitignore", b".atollignore")  # the latter has the last word
HOME = b".home"
TEMPORARY = b".atoll-part-"  # how files begin that a sync is about to put in place
_IGNORE_BYTES_MAX = 2**20

Load = Callable[[bytes], bytes | None]  # the contents of an ignore file by its path


class Rules:
    """Says whether a path is left out. Ignore files are read by `load` when their folder is first looked at."""

    def __init__(self, load: Load | None, exclude: Sequence[str] = (), *, home: bool = False) -> None:
        self._load = load
        self._home = home
        self._given = GitIgnoreSpec.from_lines(exclude) if exclude else None
        self._specs: dict[bytes, tuple[tuple[int, GitIgnoreSpec], ...]] = {}
        self._folders: dict[bytes, bool] = {b"": False}

    def leaves_out(self, path: bytes, directory: bool) -> bool:
        """Whether it, or a folder above it, is left out."""
        parent = path.rpartition(b"/")[0]
        return self._folder_out(parent) or self.rejects(path, directory)

    def rejects(self, path: bytes, directory: bool) -> bool:
        """The same for a path whose folder is not left out."""
        parent, _, name = path.rpartition(b"/")
        if name.startswith(TEMPORARY) or (not self._home and path == HOME):
            return True
        specs = self._specs_of(parent)
        if not specs and self._given is None:
            return False
        shown = text(path) + ("/" if directory else "")
        if self._given is not None and self._given.check_file(shown).include:
            return True
        for start, spec in reversed(specs):
            said = spec.check_file(shown[start:]).include
            if said is not None:
                return said
        return False

    def _folder_out(self, folder: bytes) -> bool:
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self.leaves_out(folder, True)
        return known

    def _specs_of(self, folder: bytes) -> tuple[tuple[int, GitIgnoreSpec], ...]:
        """The ignore files that count in a folder, the outermost first, each with where its paths begin."""
        if self._load is None:
            return ()
        known = self._specs.get(folder)
        if known is None:
            above = self._specs_of(folder.rpartition(b"/")[0]) if folder else ()
            prefix = folder + b"/" if folder else b""
            lines: list[str] = []
            for name in IGNORE_FILES:
                body = self._load(prefix + name)
                if body:
                    lines += text(body).splitlines()
            start = len(text(prefix))
            known = (*above, (start, GitIgnoreSpec.from_lines(lines))) if lines else above
            self._specs[folder] = known
        return known


def of_folder(folder: str, others: Mapping[bytes, bytes]) -> Load:
    """Ignore files of a local folder, and `others` where it has none; a link or something unreadable is none."""
    root = os.fsencode(folder)

    def load(path: bytes) -> bytes | None:
        try:
            descriptor = os.open(os.path.join(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return others.get(path)
        with open(descriptor, "rb") as file:
            return file.read(_IGNORE_BYTES_MAX)

    return load
