"""How a fake sandbox copies a folder: at once, and never over what is there."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.domain.copied import CopiedEntry
from atoll.domain.errors import InvalidInput, NotFound
from atoll.sidekick.globs import Globs
from atoll.testing.fake_files import FakeFiles


def copied(
    files: FakeFiles, source: str, target: str, ignored: Sequence[str], links: Sequence[str], *, look: bool = False
) -> list[CopiedEntry]:
    """What was made, in order; with `look`, before. NotFound, InvalidInput as from the sidekick."""
    if files.stat(source).kind != "directory":
        raise NotFound(f"source {source!r}: a parent of it is not a directory")
    if f"{target}/".startswith(f"{source}/"):
        raise InvalidInput(f"target {target!r}: lies in the source", field="target")
    globs, made, left_out = Globs(list(ignored), source), list[CopiedEntry](), list[str]()
    if not look:
        files.make_dir(target)
    for path, node in list(files.walk()):
        relative = path.removeprefix(f"{source}/")
        if relative == path or any(relative.startswith(f"{one}/") for one in left_out):
            continue
        name, there = relative.rpartition("/")[2], f"{target}/{relative}"
        if name == ".git" or globs.match(relative) or _is(files, there) is not look:
            left_out += [relative] if node.kind == "directory" and not _is(files, there) else []
            continue
        linked = node.kind == "directory" and name in links
        if linked:
            left_out.append(relative)
        if look:
            pass
        elif linked:
            files.link(there, path)
        elif node.kind == "directory":
            files.make_dir(there)
        elif node.kind == "symlink":
            files.link(there, node.target)
        else:
            files.write(there, node.content, node.mode)
        kind = "l" if name in links or node.kind == "symlink" else node.kind[0]
        made.append(CopiedEntry(kind, relative, len(node.content), 0))
    return made


def _is(files: FakeFiles, path: str) -> bool:
    try:
        files.stat(path)
    except NotFound:
        return False
    return True
