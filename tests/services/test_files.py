"""Files: one path rule for every door, and the errors that tell what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.services.paths import absolute, check_path

from .conftest import ALICE, House

BAD = ["", "\0", "a\0b", "\udc80", "x" * 4097, "é" * 2049, None, 7, b"/tmp"]
GOOD = ["/", "..", "../../etc", "/..", "//", "/tmp/..%2f..", "a\\b", "x" * 4096, "é" * 2048, " ", "\n", "~"]


async def chunks(*pieces: bytes):
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("path", BAD, ids=repr)
async def test_the_same_paths_are_refused_at_every_door(house: House, path: str) -> None:
    sandbox = await house.create()
    files = house.sandboxes.files
    for call in (
        lambda: files.read(ALICE, sandbox.id, path),
        lambda: files.write(ALICE, sandbox.id, path, chunks(b"x")),
        lambda: files.list(ALICE, sandbox.id, path),
        lambda: files.stat(ALICE, sandbox.id, path),
        lambda: files.make_dir(ALICE, sandbox.id, path),
        lambda: files.remove(ALICE, sandbox.id, path, recursive=True),
        lambda: files.move(ALICE, sandbox.id, path, "/tmp/a"),
        lambda: files.move(ALICE, sandbox.id, "/etc/hostname", path),
    ):
        with pytest.raises(InvalidInput) as caught:
            await call()
        assert caught.value.field in ("path", "source", "destination")


@pytest.mark.parametrize("path", GOOD, ids=lambda path: repr(path)[:20])
def test_strange_paths_are_the_sidekicks_to_resolve(path: str) -> None:
    assert check_path(path) == path


@given(st.text())
def test_a_path_passes_exactly_when_it_can_be_a_file_name(path: str) -> None:
    fits = 0 < len(path.encode("utf-8", "surrogatepass")) <= 4096 and "\0" not in path
    fits = fits and not any("\ud800" <= letter <= "\udfff" for letter in path)
    try:
        assert check_path(path) == path
        assert fits
    except InvalidInput:
        assert not fits


@pytest.mark.parametrize(
    ("path", "work_dir", "whole"),
    [("/a", "/w", "/a"), ("a", "/w", "/w/a"), ("a", "/", "/a"), ("../a", "/w/", "/w/../a"), (".", "/w", "/w/.")],
)
def test_a_relative_path_starts_at_the_work_dir(path: str, work_dir: str, whole: str) -> None:
    assert absolute(path, work_dir) == whole


async def test_relative_paths_land_in_the_work_dir(house: House) -> None:
    sandbox = await house.create(work_dir="/srv/app")
    files = house.sandboxes.files
    assert await files.write(ALICE, sandbox.id, "notes/today", chunks(b"hi", b"!"), mode=0o600) == 3
    entry, read = await files.read(ALICE, sandbox.id, "/srv/app/notes/today")
    assert (entry.name, entry.mode) == ("today", 0o600)
    assert b"".join([chunk async for chunk in read]) == b"hi!"
    assert [entry.name for entry in await files.list(ALICE, sandbox.id, ".")] == ["notes"]
    await files.move(ALICE, sandbox.id, "notes/today", "/tmp/../tmp/then")
    assert (await files.stat(ALICE, sandbox.id, "/tmp/then")).size == 3
    await files.make_dir(ALICE, sandbox.id, "notes")
    await files.remove(ALICE, sandbox.id, "notes")
    with pytest.raises(NotFound):
        await files.stat(ALICE, sandbox.id, "notes")
    with pytest.raises(NotFound):
        await files.read(ALICE, sandbox.id, "nothing")
    for mode in (-1, 0o10000):
        with pytest.raises(InvalidInput, match="mode"):
            await files.write(ALICE, sandbox.id, "x", chunks(b""), mode=mode)


async def test_a_sandbox_that_does_not_run_has_no_files(house: House) -> None:
    sandbox = await house.create()
    await house.sandboxes.kill(ALICE, sandbox.id)
    for call in (house.sandboxes.files.list, house.sandboxes.files.stat, house.sandboxes.files.read):
        with pytest.raises(Conflict, match="session not running: status=killed"):
            await call(ALICE, sandbox.id, "/")


async def test_a_reader_that_stops_early_closes_what_it_read_from(house: House) -> None:
    sandbox = await house.create()
    await house.sandboxes.files.write(ALICE, sandbox.id, "/tmp/f", chunks(b"x" * 2_000_000))
    _, read = await house.sandboxes.files.read(ALICE, sandbox.id, "/tmp/f")
    async for _chunk in read:
        break
    await read.aclose()  # type: ignore[attr-defined]
    assert 0 < (await house.sandboxes.usage(ALICE, sandbox.id)).bytes_out < 2_000_000


async def test_an_upload_that_breaks_off_leaves_the_old_file(house: House) -> None:
    sandbox = await house.create()
    files = house.sandboxes.files
    await files.write(ALICE, sandbox.id, "/tmp/f", chunks(b"old"))

    async def broken():
        yield b"new"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await files.write(ALICE, sandbox.id, "/tmp/f", broken())
    _, read = await files.read(ALICE, sandbox.id, "/tmp/f")
    assert b"".join([chunk async for chunk in read]) == b"old"
