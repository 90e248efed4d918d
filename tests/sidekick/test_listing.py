"""Listing a folder: however long its names are, no frame of the answer is larger than a frame may be."""

from __future__ import annotations

from pathlib import Path

from atoll.sidekick import protocol as wire
from tests.sidekick.running import RunningSidekick, send


def test_names_that_grow_as_they_are_written_still_fit_their_frames(sidekick: RunningSidekick, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1200):
        (folder / (f"{number:04}" + "\x01" * 251)).touch()
    sizes: list[int] = []
    with sidekick.open() as sock, sock.makefile("rb") as stream:
        send(sock, wire.REQUEST, {"op": "list", "path": str(folder)})
        while head := stream.read(wire.HEADER.size):
            sizes.append(wire.HEADER.unpack(head)[1])
            stream.read(sizes[-1])
    assert sum(sizes) > 1200 * 6 * 251
    assert max(sizes) <= wire.MAX_FRAME_BYTES
