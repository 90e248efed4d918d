"""C09: one server for each data folder, and no lock that outlives its holder."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.domain.data_folder import DataFolder
from atoll.domain.errors import Conflict, Unavailable
from atoll.records.data_folder import DataFolderLock

HOLDER = """
import sys, time
from pathlib import Path
from atoll.domain.data_folder import DataFolder
from atoll.records.data_folder import DataFolderLock
DataFolderLock(DataFolder(Path(sys.argv[1]))).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "some" / "data")


def test_c09_a_second_server_is_refused_and_told_who_has_the_folder(folder: DataFolder) -> None:
    first, second = DataFolderLock(folder), DataFolderLock(folder)
    first.acquire()
    with pytest.raises(Conflict, match=rf"in use by another atoll server \(pid {os.getpid()}\)"):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_the_folder_is_nobody_else_s(folder: DataFolder) -> None:
    lock = DataFolderLock(folder)
    lock.acquire()
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.lock.stat().st_mode) == 0o600
    assert not os.get_inheritable(lock.fileno())
    lock.release()


def test_c09_kill_9_frees_the_folder(folder: DataFolder) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=str(holder.pid)):
            DataFolderLock(folder).acquire()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        if holder.stdout is not None:
            holder.stdout.close()
    successor = DataFolderLock(folder)
    successor.acquire()
    assert folder.lock.read_text() == f"{os.getpid()}\n"
    successor.release()


def test_a_folder_that_cannot_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="data folder"):
        DataFolderLock(DataFolder(tmp_path / "file" / "data")).acquire()
