"""FakeFiles: a file tree in memory with links, modes and atomic replacement, as a fake sandbox has it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.domain.process import FileEntry
from atoll.domain.secret import FILES_FOLDER

LINKS_MAX = 40
PATH_BYTES_MAX = 4_096


@dataclass(slots=True, eq=False)
class Node:
    """A file, a directory (`children`) or a symlink (`target`)."""

    kind: str  # file, directory, symlink
    content: bytes = b""
    target: str = ""
    mode: int = 0o644
    modified_at: float = field(default_factory=time.time)
    children: dict[str, Node] = field(default_factory=dict[str, "Node"])

    def entry(self, name: str) -> FileEntry:
        size = len(self.content) if self.kind == "file" else len(self.target)
        return FileEntry(name, self.kind, size, self.mode, self.modified_at)


def _directory() -> Node:
    return Node("directory", mode=0o755)


class FakeFiles:
    """`..` stops at the root; links are followed inside. Errors as a sidekick's."""

    def __init__(self) -> None:
        self.root = _directory()
        for path in ("/tmp", "/home/user", "/etc", "/dev", "/proc", FILES_FOLDER):
            self.make_dir(path)
        self.write("/etc/hostname", b"sandbox\n")
        self.write("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")

    def read(self, path: str) -> tuple[FileEntry, bytes]:
        node = self._at(path)
        if node.kind != "file":
            what = "is a directory" if node.kind == "directory" else "is not a regular file"
            raise InvalidInput(f"path {path!r}: {what}", field="path")
        return node.entry(_name(path)), node.content

    def check_writable(self, path: str) -> None:
        """InvalidInput when a write could not land there."""
        parts = self._resolve(path, follow=True)
        there = self._peek(parts[:-1], parts[-1]) if parts else self.root
        if there is not None and there.kind == "directory":
            raise InvalidInput(f"path {path!r}: is a directory", field="path")

    def write(self, path: str, content: bytes, mode: int | None = None) -> int:
        parts = self._resolve(path, follow=True)
        if not parts:
            raise InvalidInput(f"path {path!r}: is a directory", field="path")
        parent = self._make(parts[:-1])
        old = parent.children.get(parts[-1])
        if old is not None and old.kind == "directory":
            raise InvalidInput(f"path {path!r}: is a directory", field="path")
        kept = old.mode if old is not None else 0o644
        parent.children[parts[-1]] = Node("file", content, mode=kept if mode is None else mode & 0o777)
        return len(content)

    def list(self, path: str) -> list[FileEntry]:
        node = self._at(path)
        if node.kind != "directory":
            raise InvalidInput(f"path {path!r}: is not a directory", field="path")
        return [child.entry(name) for name, child in sorted(node.children.items())]

    def stat(self, path: str) -> FileEntry:
        parts = self._resolve(path, follow=False)
        return self._node(parts, path).entry(parts[-1] if parts else "/")

    def make_dir(self, path: str) -> None:
        self._make(self._resolve(path, follow=True))

    def link(self, path: str, target: str) -> None:
        parts = self._resolve(path, follow=False)
        self._make(parts[:-1]).children[parts[-1]] = Node("symlink", target=target, mode=0o777)

    def remove(self, path: str, *, recursive: bool) -> None:
        parts = self._resolve(path, follow=False)
        if not parts:
            raise InvalidInput("path: the root cannot be removed", field="path")
        node = self._node(parts, path)
        if node.children and not recursive:
            raise Conflict(f"path {path!r}: the directory is not empty")
        del self._node(parts[:-1], path).children[parts[-1]]

    def move(self, source: str, destination: str) -> None:
        old, new = self._resolve(source, follow=False), self._resolve(destination, follow=False)
        if not old or not new:
            raise InvalidInput("from, to: the root cannot be moved", field="from")
        node = self._node(old, source)
        if new[: len(old)] == old and new != old:
            raise InvalidInput(f"from {source!r}: invalid argument", field="from")
        parent = self._make(new[:-1])
        there = parent.children.get(new[-1])
        if there is not None and there.kind == "directory" and there.children:
            raise Conflict(f"from {source!r}: the directory is not empty")
        del self._node(old[:-1], source).children[old[-1]]
        parent.children[new[-1]] = node

    def is_dir(self, path: str) -> bool:
        try:
            return self._at(path).kind == "directory"
        except (NotFound, InvalidInput):
            return False

    def walk(self, node: Node | None = None, at: str = "") -> Iterator[tuple[str, Node]]:
        """(path, node) of everything below the root, parents first."""
        for name, child in sorted((node or self.root).children.items()):
            yield f"{at}/{name}", child
            yield from self.walk(child, f"{at}/{name}") if child.kind == "directory" else ()

    def _at(self, path: str) -> Node:
        return self._node(self._resolve(path, follow=True), path)

    def _node(self, parts: list[str], path: str) -> Node:
        node = self.root
        for part in parts:
            child = node.children.get(part)
            if child is None:
                raise NotFound(f"path {path!r}: no such file or directory")
            node = child
        return node

    def _make(self, parts: list[str]) -> Node:
        node = self.root
        for part in parts:
            node = node.children.setdefault(part, _directory())
            if node.kind != "directory":
                raise InvalidInput(f"path {part!r}: a part of it is not a directory", field="path")
        return node

    def _resolve(self, path: str, *, follow: bool) -> list[str]:
        """The names from the root on, without `.`, `..` and links (the last one stays unless `follow`)."""
        todo = _checked(path).split("/")
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            if len(part.encode()) > 255:
                raise InvalidInput("path: one of its names is too long", field="path")
            child = self._peek(done, part)
            if child is None or child.kind != "symlink" or not (follow or any(todo)):
                done.append(part)
                continue
            links += 1
            if links > LINKS_MAX:
                raise InvalidInput(f"path {path!r}: too many symbolic links", field="path")
            if child.target.startswith("/"):
                done = []
            todo = child.target.split("/") + todo
        return done

    def _peek(self, parts: list[str], name: str) -> Node | None:
        node: Node | None = self.root
        for part in parts:
            node = node.children.get(part) if node is not None else None
        return None if node is None else node.children.get(name)


def _name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1] or "/"


def _checked(path: str) -> str:
    if not path or "\0" in path or len(path.encode(errors="replace")) > PATH_BYTES_MAX:
        raise InvalidInput("path: expected 1 to 4096 bytes without NUL", field="path")
    return path
