"""The rules of what stays out, beside git's own."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from atoll.sdk.sync.ignore import Rules, of_folder
from atoll.sdk.sync.scan import scan

PATTERNS = """*.o !keep.o /top dir/ a/b **/deep a/**/z foo* [ab].c \\#x \\!y *.tmp !important.tmp x/ !x/ a/*
!a/keep doc/**/*.txt /*.md b* !bar a/** * !*/ !*.c **/x/**"""
NAMES = """a b c x y z top dir deep keep keep.o q.o a.c foo bar important.tmp i.tmp doc n.txt r.md #x !y"""


@pytest.mark.skipif(shutil.which("git") is None, reason="git says what is right")
@pytest.mark.parametrize("seed", range(8))
def test_what_git_ignores_stays_out(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    folders = [tmp_path / "tree"]
    folders[0].mkdir()
    for _ in range(60):
        parent = chance.choice(folders)
        path = parent / chance.choice(NAMES.split())
        if path.exists() or len(path.relative_to(tmp_path).parts) > 6:
            continue
        if chance.random() < 0.4:
            path.mkdir()
            folders.append(path)
        else:
            path.write_text("")
    for parent in chance.sample(folders, min(3, len(folders))):
        (parent / ".gitignore").write_text("\n".join(chance.choices(PATTERNS.split(), k=5)) + "\n")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    git = ["git", "-C", str(folders[0]), "-c", "core.quotePath=false"]
    subprocess.run([*git, "init", "-q"], check=True, env=environment)
    listed = subprocess.run(
        [*git, "ls-files", "--others", "--exclude-standard", "-z"], check=True, env=environment, capture_output=True
    )
    wanted = {path for path in listed.stdout.split(b"\0") if path}
    shutil.rmtree(folders[0] / ".git")
    seen = scan(str(folders[0]), Rules(of_folder(str(folders[0]), {})), {})
    assert {path for path, entry in seen.entries.items() if entry.kind.value == "f"} == wanted


def test_names_that_are_no_text_are_matched_too(tmp_path: Path) -> None:
    for name in (b"\xff.o", b"\xff.c", b"caf\xc3\xa9"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    (tmp_path / ".gitignore").write_text("*.o\ncafé\n")
    seen = scan(str(tmp_path), Rules(of_folder(str(tmp_path), {})), {})
    assert set(seen.entries) == {b".gitignore", b"\xff.c"}


def test_patterns_of_options_and_the_home() -> None:
    rules = Rules(None, ["*.log", "/build"])
    assert rules.leaves_out(b"a/x.log", False)
    assert rules.leaves_out(b"build/deep/x", False)
    assert not rules.leaves_out(b"a/build", False)
    assert rules.leaves_out(b".home/.cache/x", False)
    assert not rules.leaves_out(b"a/.home", True)
    assert not Rules(None, home=True).leaves_out(b".home/x", False)
    assert rules.leaves_out(b"a/.atoll-part-1", False)
