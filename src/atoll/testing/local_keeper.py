"""LocalKeeper: a keeper as a plain process for one folder, isolated by nothing: for tests and fakes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from asyncio import StreamReader, StreamWriter, open_unix_connection
from types import TracebackType

from atoll.domain.errors import NotFound
from atoll.sidekick.keeper_client import KeeperClient

STREAM_LIMIT_BYTES = 2**20
END_S = 5.0


class LocalKeeper:
    """Starts when it is first asked for its client, again when it has ended itself; `close` ends it surely.

    `folder` must exist. A second `close` does nothing.
    """

    def __init__(self, folder: str | os.PathLike[str], *, idle_s: float = 60.0) -> None:
        self.folder = os.fspath(folder)
        self.process: subprocess.Popen[bytes] | None = None
        self._idle_s = idle_s
        self._place: str | None = None  # its socket's folder: short, as socket paths must be

    def __enter__(self) -> LocalKeeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def client(self) -> KeeperClient:
        """Connects when it is used; it goes on working when the keeper had ended itself meanwhile."""
        return KeeperClient(self.connect)

    async def connect(self) -> tuple[StreamReader, StreamWriter]:
        """One connection; NotFound when the folder is gone."""
        self._start()
        try:
            return await open_unix_connection(f"{self._place}/keeper", limit=STREAM_LIMIT_BYTES)
        except OSError:  # it was just leaving
            self.close()
            self._start()
            return await open_unix_connection(f"{self._place}/keeper", limit=STREAM_LIMIT_BYTES)

    def close(self) -> None:
        """End it, with whatever operations run."""
        process, self.process = self.process, None
        if process is not None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(END_S)
            assert process.stdout is not None
            process.stdout.close()
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
            self._place = None

    def _start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        self.close()
        if not os.path.isdir(self.folder):
            raise NotFound("the tree does not exist")
        self._place = tempfile.mkdtemp(prefix="atoll-keeper-")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "atoll.sidekick.keeper", "--socket", f"{self._place}/keeper"),
                *("--tree", self.folder, "--idle", str(self._idle_s)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # its children go with it
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            self.close()
            raise NotFound("the keeper did not start")
