"""Paths: one rule for what a path is, and no way through the magic links of /proc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.sidekick.paths import clean, open_path
from atoll.sidekick.protocol import Refused


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("a", "/a"),
        ("/", "/"),
        ("//", "/"),
        ("///a//b/", "/a/b"),
        ("../../a", "/a"),
        ("/a/../../b", "/b"),
        ("./a/.", "/a"),
        ("/a\\..\\b", "/a\\..\\b"),
        ("/%2e%2e/a", "/%2e%2e/a"),
        (" ", "/ "),
        ("/a\nb", "/a\nb"),
        ("\udcff", "/\udcff"),
    ],
)
def test_a_path_is_absolute_and_its_dots_are_resolved_by_name(given: str, means: str) -> None:
    assert clean(given) == means


@pytest.mark.parametrize("path", ["", "\0", "a\0", None, 1, [], {}, True, "\ud800", "a" * 4097, "é" * 2049])
def test_what_cannot_be_a_path_is_refused_with_the_field(path: object) -> None:
    with pytest.raises(Refused) as caught:
        clean(path, "from")
    assert (caught.value.code, caught.value.field) == ("bad_request", "from")


@given(st.text())
def test_every_text_is_clean_or_refused(path: str) -> None:
    try:
        cleaned = clean(path)
    except Refused:
        return
    assert cleaned.startswith("/")
    assert not cleaned.startswith("//")
    assert not {"..", "."} & set(cleaned.split("/"))
    assert clean(cleaned) == cleaned


def test_magic_links_are_not_followed(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(f"/proc/self/fd/{here}")
    try:
        for path in (f"/proc/self/fd/{here}/file", "/proc/self/root/etc", "/proc/self/cwd", f"{tmp_path}/link/file"):
            with pytest.raises(OSError, match="symbolic links"):
                open_path(path, os.O_PATH)
        os.close(open_path(f"{tmp_path}/file", os.O_RDONLY))
    finally:
        os.close(here)


def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    fd = open_path(str(tmp_path), os.O_PATH)
    assert not os.get_inheritable(fd)
    os.close(fd)
