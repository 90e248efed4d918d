"""Starts a server on its own: a new session, no descriptor of ours but its log; `atoll up --detach` calls it.

The server says through a pipe that it is ready, or why it is not, and closes the pipe.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from atoll.cli.failure import Failed

READY_S = 150.0  # migrations of a large database are the longest
LOG = "server.log"
LOG_BYTES_MAX = 64 * 2**20  # at a start; then it becomes server.log.1
_TAIL_BYTES = 2_000
_ANSWER_BYTES_MAX = 65_536


def start(words: list[str], data: Path) -> dict[str, Any]:
    """Run `atoll <words>` detached; what it said when it was ready. Failed, with its reason, when it never was."""
    log = _open_log(data)
    reader, writer = os.pipe()
    try:
        # The child forks once more, so that the server is nobody's child and no session's leader.
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, str(writer), *words, "--notify", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            pass_fds=(writer,),
        )
    finally:
        os.close(writer)
        os.close(log)
    try:
        child.wait(READY_S)
        answer = _read(reader, READY_S)
    except KeyboardInterrupt:
        raise Failed(f"the server goes on starting: `atoll down --data {shlex.quote(str(data))}` ends it") from None
    finally:
        os.close(reader)
    if not answer:
        raise Failed(f"the server ended before it was ready; {data / LOG} ends with:\n{_tail(data / LOG)}")
    said: dict[str, Any] = json.loads(answer)
    if "error" in said:
        raise Failed(said["error"])
    return said


_PROGRAM = """
import os, sys
writer = int(sys.argv.pop(1))
if os.fork():
    os._exit(0)
os.set_inheritable(writer, False)
from atoll.cli.main import main
main()
"""


def _environment() -> dict[str, str]:
    """Ours, but with the module path made absolute: the server runs in another folder."""
    environment = dict(os.environ)
    if "PYTHONPATH" in environment:
        parts = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(part).absolute()) for part in parts)
    return environment


def _open_log(data: Path) -> int:
    """The log, opened to append. OSError when the folder cannot be made or written."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = data / LOG
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _read(reader: int, limit_s: float) -> bytes:
    """Everything until the other end is closed."""
    until = time.monotonic() + limit_s
    answer = b""
    while len(answer) < _ANSWER_BYTES_MAX:
        ready, _, _ = select.select([reader], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise Failed(f"the server was not ready after {limit_s:g} s")
        data = os.read(reader, _ANSWER_BYTES_MAX)
        if not data:
            break
        answer += data
    return answer


def _tail(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode(errors="replace").strip()
    except OSError as error:
        return str(error)
