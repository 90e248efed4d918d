"""The object-store door with gsutil as it is published, in a network of its own: what is synced is the same after."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.serve import accepting

from .conftest import Store
from .elsewhere import Elsewhere
from .program import gsutil, settle
from .signing import BUCKET

__all__ = ["gsutil"]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a network of its own, which needs root"),
    pytest.mark.timeout(240),
]


@dataclass
class Machine:
    """A client's machine in a network where the door stands at port 80."""

    store: Store
    net: Elsewhere
    program: Path
    env: dict[str, str]

    @classmethod
    async def of(cls, store: Store, net: Elsewhere, program: Path, home: Path) -> Machine:
        alice = await store.alice()
        return cls(store, net, program, settle(home, alice.access, alice.secret))

    async def gsutil(self, *words: str | Path) -> str:
        return await self.net.run(self.program, *words, env=self.env)

    async def push(self, folder: Path, workspace: str = "proj-1") -> str:
        """As the published CloudRuntime does."""
        return await self.gsutil("-m", "rsync", "-r", "-d", "-c", f"{folder}/", f"gs://{BUCKET}/{workspace}/")

    async def pull(self, folder: Path, workspace: str = "proj-1") -> str:
        return await self.gsutil("-m", "rsync", "-r", "-d", "-c", f"gs://{BUCKET}/{workspace}/", f"{folder}/")


@pytest.fixture
async def machine(store: Store, gsutil: Path, tmp_path: Path) -> AsyncIterator[Machine]:
    try:
        net = await asyncio.to_thread(Elsewhere.make, [("127.0.0.1", 80)])
    except OSError as error:
        pytest.skip(f"no network of one's own here: {error}")
    [door] = store.app.beside
    try:
        async with accepting(door.app, store.app.settings, net.listeners[0]):
            yield await Machine.of(store, net, gsutil, tmp_path / "client")
    finally:
        net.close()


def held(folder: Path) -> dict[str, str]:
    """Files by their paths, with their contents' hashes."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


async def test_gsutil_syncs_a_folder_there_and_back(machine: Machine, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for name, content in {
        "app.py": b"print('hello')\n",
        "sub/b c.txt": b"two\n",
        "sub/deep/ä☃.txt": b"unicode\n",
        "big.bin": os.urandom(3 * 2**20 + 5),
        "empty": b"",
    }.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content)
    await machine.push(here)
    tree = await machine.store.tree("proj-1")
    assert held(tree) == held(here)
    assert machine.store.objects.checksums.read_bytes == 0

    again = await machine.push(here)
    assert "Copying" not in again and "Removing" not in again

    # an agent works on it, and has its memory beside
    (tree / "app.py").write_bytes(b"print('hello, world')\n")
    (tree / "new").mkdir()
    (tree / "new/made.py").write_bytes(b"made\n")
    (tree / "empty").unlink()
    (tree / ".home/.atoll").mkdir(parents=True)
    (tree / ".home/.atoll/thread").write_bytes(b"remembered")
    await machine.store.touched("proj-1")
    there.mkdir()
    (there / "stale").write_bytes(b"goes")
    await machine.pull(there)
    assert held(there) == {name: digest for name, digest in held(tree).items() if not name.startswith(".home/")}

    (there / "new/made.py").unlink()
    (there / "app.py").write_bytes(b"changed here\n")
    told = await machine.push(there)
    assert told.count("Copying") == 1 and told.count("Removing") == 1
    assert (tree / "app.py").read_bytes() == b"changed here\n"
    assert not (tree / "new/made.py").exists()
    assert (tree / ".home/.atoll/thread").read_bytes() == b"remembered"


async def test_gsutil_lists_copies_and_removes(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"a\n")
    bucket = f"gs://{BUCKET}"
    await machine.gsutil("cp", file, f"{bucket}/w/d/a.txt")
    assert (await machine.gsutil("ls", bucket)).split() == [f"{bucket}/w/"]
    assert f"{bucket}/w/d/" in await machine.gsutil("ls", f"{bucket}/w")
    assert "TOTAL: 1 objects, 2 bytes" in await machine.gsutil("ls", "-lr", f"{bucket}/w/")
    assert await machine.gsutil("-q", "cat", f"{bucket}/w/d/a.txt") == "a\n"
    assert await machine.gsutil("-q", "cat", "-r", "1-", f"{bucket}/w/d/a.txt") == "\n"
    await machine.gsutil("rm", f"{bucket}/w/d/a.txt")
    assert (await machine.gsutil("ls", bucket)).split() == [f"{bucket}/w/"]
