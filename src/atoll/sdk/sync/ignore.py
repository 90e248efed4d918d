"""Which paths stay out of a sync: `.gitignore` and `.atollignore` at every level, `--exclude`, and the home folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from pathspec import GitIgnoreSpec

from atoll.domain.tree import text

IGNORE_FILES = (b".gitignore", b".atollignore")  # the latter has the last word
HOME = b".home"
TEMPORARY = b".atoll-part-"  # how files begin that a sync is about to put in place
_IGNORE_BYTES_MAX = 2**20

_GROUP = re.compile(r"\(\?P<\w+>")  # a pattern's own names, of which one expression cannot have several
_DIRECTORY = "(?P<ps_d>/)"  # what pathspec ends expressions with that may match a directory

Load = Callable[[bytes], bytes | None]  # the contents of an ignore file by its path


class _Spec:
    """The lines of one ignore file, as pathspec reads them.

    A path is asked about when its folder is not left out: so a line counts that is about the path itself, not about a
    folder above it, which is what git does and where pathspec's own search differs when lines are negated.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        patterns = cast("Iterable[Any]", GitIgnoreSpec.from_lines(lines).patterns)
        self._lines: list[tuple[re.Pattern[str], bool]] = [
            (pattern.regex, pattern.include) for pattern in patterns if pattern.include is not None
        ][::-1]
        # Most paths match no line: one expression tells, in a fifth of the time that asking each line takes.
        self._any = re.compile("|".join(_GROUP.sub("(?:", line.pattern) for line, _ in self._lines) or "(?!)")

    def says(self, path: str) -> bool | None:
        """Whether the path is left out; None: no line is about it. Those of directories end with a slash."""
        if self._any.search(path):
            for line, out in self._lines:
                found = line.search(path)
                if found is not None and _is_about(line.pattern, found.end(), path):
                    return out
        return None


def _is_about(line: str, end: int, path: str) -> bool:
    """Whether a line that matches up to `end` is about the path itself."""
    if line == _DIRECTORY:  # */
        return path.endswith("/")
    if _DIRECTORY in line:  # NAME or NAME/: the path, but nothing in it
        return end == len(path)
    return not line.endswith("/") or end < len(path)  # NAME/**: what is in it, but not itself


class Rules:
    """Says whether a path is left out. Ignore files are read by `load` when their folder is first looked at."""

    def __init__(self, load: Load | None, exclude: Sequence[str] = (), *, home: bool = False) -> None:
        self._load = load
        self._home = home
        self._given = _Spec(exclude) if exclude else None
        self._specs: dict[bytes, tuple[tuple[int, _Spec], ...]] = {}
        self._folders: dict[bytes, bool] = {b"": False}

    def leaves_out(self, path: bytes, directory: bool) -> bool:
        """Whether it, or a folder above it, is left out."""
        parent = path.rpartition(b"/")[0]
        return self._folder_out(parent) or self.rejects(path, directory)

    def count_in(self, folder: bytes) -> bool:
        """Whether patterns count in that folder. Otherwise nothing is rejected there but hidden files."""
        return self._given is not None or bool(self._specs_of(folder))

    def rejects(self, path: bytes, directory: bool) -> bool:
        """The same for a path whose folder is not left out."""
        parent, _, name = path.rpartition(b"/")
        if name.startswith(TEMPORARY) or (not self._home and path == HOME):
            return True
        specs = self._specs_of(parent)
        if not specs and self._given is None:
            return False
        shown = text(path) + ("/" if directory else "")
        if self._given is not None and self._given.says(shown):
            return True
        for start, spec in reversed(specs):
            said = spec.says(shown[start:])
            if said is not None:
                return said
        return False

    def _folder_out(self, folder: bytes) -> bool:
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self.leaves_out(folder, True)
        return known

    def _specs_of(self, folder: bytes) -> tuple[tuple[int, _Spec], ...]:
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
            known = (*above, (start, _Spec(lines))) if lines else above
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
