"""Files: whole and atomic, and never outside the sandbox, whatever the path says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound
from atoll.sidekick.client import SidekickClient
from atoll.testing.runtime_conformance.suite import Suite, chunks, content, sh, until

CANARY = "canary-of-the-host"


def _text(path: Path) -> str:
    return path.read_text()


class FileChecks(Suite):
    @pytest.fixture
    def canary(self, tmp_path: Path) -> Path:
        """A file of the host that nothing inside may see or touch."""
        path = tmp_path / "canary"
        path.write_text(CANARY)
        return path

    @pytest.mark.parametrize("size", [0, 1, 262_144, 3_000_001])
    async def test_what_is_written_is_read_back(self, inside: SidekickClient, size: int) -> None:
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        pieces = [data[at : at + 100_000] for at in range(0, size, 100_000)]
        assert await inside.write_file("/tmp/a/b/file", chunks(*pieces)) == size
        entry, read = await inside.read_file("/tmp/a/b/file")
        assert (entry.name, entry.kind, entry.size) == ("file", "file", size)
        assert b"".join([piece async for piece in read]) == data

    async def test_programs_inside_see_the_same_files(self, inside: SidekickClient) -> None:
        await inside.write_file("/tmp/from-outside", chunks(b"hello\n"))
        assert (await sh(inside, "cat /tmp/from-outside; echo bye > /tmp/from-inside")).stdout == b"hello\n"
        assert await content(inside, "/tmp/from-inside") == b"bye\n"

    async def test_the_mode_is_what_was_asked_for(self, inside: SidekickClient) -> None:
        await inside.write_file("/tmp/script", chunks(b"echo ran\n"), mode=0o750)
        assert (await inside.stat("/tmp/script")).mode == 0o750
        await inside.write_file("/tmp/script", chunks(b"echo again\n"))
        assert (await inside.stat("/tmp/script")).mode == 0o750
        await inside.write_file("/tmp/plain", chunks(b""))
        assert (await inside.stat("/tmp/plain")).mode == 0o644

    @pytest.mark.parametrize("name", ["with space", "ünïcode", "new\nline", "-rf", "a\\b", "%2e%2e", "'\"$(x)"])
    async def test_any_name_is_only_a_name(self, inside: SidekickClient, name: str) -> None:
        await inside.make_dir("/tmp/names")
        await inside.write_file(f"/tmp/names/{name}", chunks(b"x"))
        assert [entry.name for entry in await inside.list_dir("/tmp/names")] == [name]
        assert await content(inside, f"/tmp/names/{name}") == b"x"

    async def test_a_file_is_replaced_in_one_step(self, inside: SidekickClient) -> None:
        old, new = b"a" * 500_000, b"b" * 400_000
        await inside.write_file("/tmp/whole", chunks(old))

        async def slowly():
            yield new[:100_000]
            await asyncio.sleep(0.1)
            yield new[100_000:]

        writing = asyncio.create_task(inside.write_file("/tmp/whole", slowly()))
        seen: set[bytes] = set()
        while not writing.done():
            seen.add(await content(inside, "/tmp/whole"))
            await asyncio.sleep(0.01)
        assert await writing == len(new)
        assert seen <= {old, new}
        assert old in seen
        assert await content(inside, "/tmp/whole") == new

    async def test_a_write_that_breaks_off_leaves_the_old_file_and_nothing_else(self, inside: SidekickClient) -> None:
        await inside.write_file("/tmp/only/kept", chunks(b"old"))

        async def broken():
            yield b"half of it"
            raise ConnectionResetError("the uploader went away")

        with pytest.raises(ConnectionResetError):
            await inside.write_file("/tmp/only/kept", broken())
        assert await content(inside, "/tmp/only/kept") == b"old"

        async def alone() -> bool:
            return [entry.name for entry in await inside.list_dir("/tmp/only")] == ["kept"]

        await until(alone)

    async def test_the_root_lists_itself(self, inside: SidekickClient) -> None:
        names = [entry.name for entry in await inside.list_dir("/")]
        assert {"tmp", "etc"} <= set(names)
        assert names == sorted(names)
        assert (await inside.stat("/")).kind == "directory"

    async def test_a_directory_tells_kinds_and_sizes(self, inside: SidekickClient) -> None:
        await inside.write_file("/tmp/d/file", chunks(b"12345"))
        await inside.make_dir("/tmp/d/sub")
        await sh(inside, "ln -s /etc/passwd /tmp/d/link")
        entries = {entry.name: entry for entry in await inside.list_dir("/tmp/d")}
        assert {name: entry.kind for name, entry in entries.items()} == {
            "file": "file",
            "link": "symlink",
            "sub": "directory",
        }
        assert entries["file"].size == 5
        assert (await inside.stat("/tmp/d/link")).kind == "symlink"

    async def test_wrong_kinds_and_missing_files_are_told_apart(self, inside: SidekickClient) -> None:
        await inside.write_file("/tmp/plain", chunks(b"x"))
        for call in (
            lambda: inside.read_file("/tmp/nothing"),
            lambda: inside.list_dir("/tmp/nothing"),
            lambda: inside.stat("/tmp/nothing"),
            lambda: inside.remove("/tmp/nothing"),
            lambda: inside.move("/tmp/nothing", "/tmp/other"),
        ):
            with pytest.raises(NotFound):
                await call()
        for call in (
            lambda: inside.read_file("/tmp"),
            lambda: inside.list_dir("/tmp/plain"),
            lambda: inside.write_file("/tmp", chunks(b"x")),
            lambda: inside.write_file("/tmp/plain/below", chunks(b"x")),
            lambda: inside.remove("/"),
        ):
            with pytest.raises((InvalidInput, NotFound)):
                await call()

    async def test_devices_and_pipes_are_no_files(self, inside: SidekickClient) -> None:
        self.need("shell")
        await sh(inside, "mkfifo /tmp/pipe")
        for path in ("/tmp/pipe", "/dev/zero", "/dev/tty", "/proc/self/mem"):
            with pytest.raises(AtollError):
                async with asyncio.timeout(5):
                    await content(inside, path)

    async def test_directories_are_made_moved_and_removed(self, inside: SidekickClient) -> None:
        await inside.make_dir("/tmp/x/y/z")
        await inside.make_dir("/tmp/x/y/z")
        await inside.write_file("/tmp/x/y/z/f", chunks(b"1"))
        with pytest.raises(Conflict):
            await inside.remove("/tmp/x")
        await inside.move("/tmp/x", "/tmp/new/place")
        assert await content(inside, "/tmp/new/place/y/z/f") == b"1"
        await inside.remove("/tmp/new", recursive=True)
        with pytest.raises(NotFound):
            await inside.stat("/tmp/new")

    async def test_removing_a_link_leaves_what_it_points_to(self, inside: SidekickClient) -> None:
        await inside.write_file("/tmp/real/f", chunks(b"1"))
        await sh(inside, "ln -s /tmp/real /tmp/alias")
        await inside.remove("/tmp/alias", recursive=True)
        assert await content(inside, "/tmp/real/f") == b"1"

    @pytest.mark.parametrize("path", ["", "a\0b", "/tmp/" + "x" * 4096, "/tmp/" + "y" * 300])
    async def test_a_path_that_cannot_be_one_is_refused_everywhere(self, inside: SidekickClient, path: str) -> None:
        for call in (
            lambda: inside.read_file(path),
            lambda: inside.write_file(path, chunks(b"x")),
            lambda: inside.list_dir(path),
            lambda: inside.make_dir(path),
            lambda: inside.remove(path),
            lambda: inside.move(path, "/tmp/ok"),
            lambda: inside.move("/etc/passwd", path),
        ):
            with pytest.raises((InvalidInput, NotFound)):
                await call()

    @pytest.mark.parametrize(
        "prefix", ["/../../../../../../../..", "/tmp/../../..", "//", "/./.", "/proc/self/root", "/proc/1/root"]
    )
    async def test_no_path_leads_out(self, inside: SidekickClient, canary: Path, prefix: str) -> None:
        with pytest.raises(AtollError):
            await content(inside, f"{prefix}{canary}")
        try:
            await inside.write_file(f"{prefix}{canary}", chunks(b"overwritten"))
            await inside.remove(f"{prefix}{canary}")
        except AtollError:
            pass
        assert _text(canary) == CANARY

    async def test_dots_stay_inside(self, inside: SidekickClient) -> None:
        await inside.write_file("/../../tmp/../tmp/./dots", chunks(b"in"))
        assert await content(inside, "/tmp/dots") == b"in"
        assert await content(inside, "tmp//dots") == b"in"

    async def test_links_resolve_inside(self, inside: SidekickClient, canary: Path) -> None:
        await sh(inside, f"ln -s {canary} /tmp/out; ln -s {canary.parent} /tmp/outdir; ln -s /tmp/loop /tmp/loop")
        for path in ("/tmp/out", f"/tmp/outdir/{canary.name}", "/tmp/loop"):
            with pytest.raises(AtollError):
                await content(inside, path)
        for path in ("/tmp/out", f"/tmp/outdir/{canary.name}", "/tmp/outdir/new"):
            try:
                await inside.write_file(path, chunks(b"written inside"))
            except AtollError:
                pass
        assert _text(canary) == CANARY
        assert [path.name for path in canary.parent.iterdir() if path.name == "new"] == []
