"""Writing into a folder as somebody who is not root: closed directories are opened for as long as it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65_534
SOURCE = Path(__file__).parents[2] / "src"
PROGRAM = """
import os, sys
sys.path[:] = {path!r}
from atoll.domain.tree import Entry, EntryKind, chunk_id
from atoll.domain.tree_changes import changes
from atoll.sdk.sync.apply import Applying
from atoll.sdk.sync.folder import Folder
from atoll.sdk.sync.ignore import Rules, of_folder
from atoll.sdk.sync.scan import scan

root, data = {root!r}, b"new"
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
seen = scan(root, Rules(of_folder(root, {{}})), {{}})
assert seen.left_out == {{b"closed": "Permission denied"}}, seen.left_out

def file(path, mode):
    return Entry(path, EntryKind.FILE, mode, 5, size=3, chunks=chunk_id(data))

made = Entry(b"made", EntryKind.DIRECTORY, 0o555, 7)
new = [file(b"ro/f", 0o444), file(b"ro/sub/n", 0), file(b"made/x", 0o644), made]
after = {{**seen.entries, **{{entry.path: entry for entry in new}}}}
del after[b"ro/sub/g"]
after = {{path: after[path] for path in sorted(after)}}
folder = Folder(root)
applying = Applying(folder, changes(seen.entries.values(), after.values()), after, seen.entries, seen.stamps)
applying.begin()
receiver = applying.receive()
expected = next(receiver)
try:
    receiver.send((expected, data))
except StopIteration:
    pass
applying.finish()
folder.close()
assert not applying.disturbed, applying.disturbed
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """Where everybody may go, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_closed_directories_are_opened_and_closed_again(root: Path) -> None:
    for path in ("ro/f", "ro/sub/g", "closed/h"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("old")
    for path in [root, *root.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    for path, mode in (("ro/sub", 0o555), ("ro", 0o555), ("closed", 0)):
        (root / path).chmod(mode)
    program = PROGRAM.format(path=[str(SOURCE), *sys.path[1:]], root=str(root), nobody=NOBODY)
    # Everything is imported before the rights are given up.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert (root / "ro" / "f").read_text() == (root / "made" / "x").read_text() == "new"
    assert not (root / "ro" / "sub" / "g").exists()
    modes = {path: (root / path).stat().st_mode & 0o7777 for path in ("ro", "ro/sub", "ro/sub/n", "made", "closed")}
    assert modes == {"ro": 0o555, "ro/sub": 0o555, "ro/sub/n": 0, "made": 0o555, "closed": 0}
