"""The master key's file: made once, nobody else's, and never replaced by another without a word."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.domain.errors import Corrupt, InvalidInput, Unavailable
from atoll.vaults.local_key import MASTER_KEY_BYTES, LocalKey

STARTER = """
import asyncio, sys
from pathlib import Path
from atoll.vaults.local_key import LocalKey
asyncio.run(LocalKey(Path(sys.argv[1])).start())
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "master.key"


async def test_the_first_start_makes_it_and_the_next_ones_read_it(file: Path) -> None:
    first = LocalKey(file)
    await first.start()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_bytes()) == MASTER_KEY_BYTES
    wrapped = await first.wrap(bytes(32), "lin")
    await first.close()
    second = LocalKey(file)
    await second.start()
    assert await second.unwrap(wrapped, "lin") == bytes(32)
    assert os.listdir(file.parent) == ["master.key"]


def test_of_several_first_starts_one_makes_it(file: Path) -> None:
    starters = [subprocess.Popen([sys.executable, "-c", STARTER, str(file)]) for _ in range(4)]
    assert [starter.wait(30) for starter in starters] == [0] * 4
    assert os.listdir(file.parent) == ["master.key"]


async def test_what_a_killed_start_left_is_removed(file: Path) -> None:
    await LocalKey(file).start()
    (file.parent / ".master.key.0123").write_bytes(b"half")
    (file.parent / "other").write_bytes(b"")
    await LocalKey(file).start()
    assert sorted(os.listdir(file.parent)) == ["master.key", "other"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
async def test_a_file_that_others_may_read_is_refused_with_the_fix(file: Path, mode: int) -> None:
    await LocalKey(file).start()
    file.chmod(mode)
    with pytest.raises(InvalidInput, match=rf"mode 0{mode:o}\): chmod 600 {file}") as raised:
        await LocalKey(file).start()
    assert raised.value.field == "vault.key_file"
    file.chmod(0o400)
    await LocalKey(file).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives the file to somebody else")
async def test_a_file_of_somebody_else_s_is_refused_with_the_fix(file: Path) -> None:
    await LocalKey(file).start()
    os.chown(file, 12345, 0)
    with pytest.raises(InvalidInput, match=rf"\(uid 12345\): chown 0 {file}"):
        await LocalKey(file).start()


@pytest.mark.parametrize("size", [0, MASTER_KEY_BYTES - 1, MASTER_KEY_BYTES + 1])
async def test_a_file_of_another_size_is_refused_and_left_alone(file: Path, size: int) -> None:
    file.parent.mkdir()
    file.write_bytes(bytes(size))
    file.chmod(0o600)
    with pytest.raises(InvalidInput, match=f"has {size} bytes, a master key has 32"):
        await LocalKey(file).start()
    assert file.read_bytes() == bytes(size)


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a file"):
        await LocalKey(tmp_path).start()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidInput, match="is not a file"):
        await LocalKey(tmp_path / "fifo").start()
    (tmp_path / "there").write_text("")
    with pytest.raises(InvalidInput, match="no master key can be kept in"):
        await LocalKey(tmp_path / "there" / "master.key").start()


async def test_another_master_key_says_which_one_it_took(file: Path, tmp_path: Path) -> None:
    mine, other = LocalKey(file), LocalKey(tmp_path / "other.key")
    await mine.start()
    await other.start()
    wrapped = await mine.wrap(bytes(32), "lin")
    with pytest.raises(Corrupt, match=f"wrapped by the master key {wrapped[1:9].hex()}, but") as refused:
        await other.unwrap(wrapped, "lin")
    assert str(tmp_path) not in refused.value.message  # a client is told of it, too
    assert file.read_bytes() not in wrapped


async def test_a_vault_that_is_not_started_is_unavailable(file: Path) -> None:
    vault = LocalKey(file)
    with pytest.raises(Unavailable):
        await vault.wrap(bytes(32), "lin")
    await vault.start()
    await vault.close()
    with pytest.raises(Unavailable):
        await vault.unwrap(b"", "lin")
