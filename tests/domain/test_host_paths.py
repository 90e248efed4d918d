"""What clients are told names no file of the server's."""

from __future__ import annotations

import errno
import os

import pytest

from atoll.domain.host_paths import without_paths

FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (str(OSError(errno.ENOSPC, FULL, "/var/lib/atoll/run/b 1")), f"[Errno 28] {FULL}"),
        (str(OSError(errno.ENOSPC, FULL, "/it's here")), f"[Errno 28] {FULL}"),
        (str(OSError(errno.ENOSPC, FULL, "/a", None, "/b")), f"[Errno 28] {FULL}"),
        (f"[Errno 28] mount /srv/x on /srv/trees/y.z-1: {FULL}", f"[Errno 28] mount [path] on [path]: {FULL}"),
        ("(/a/b), \"/c\"", "([path]), [path]"),
        ("cpu.max 1/2 of 50000/100000, ws/w, http://host/x", "cpu.max 1/2 of 50000/100000, ws/w, http://host/x"),
        ("nothing to see", "nothing to see"),
    ],
)  # fmt: skip
def test_paths_go_and_the_rest_stays(text: str, told: str) -> None:
    assert without_paths(text) == told
