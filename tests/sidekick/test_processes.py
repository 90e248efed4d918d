"""Processes: what they write waits for its reader; their list is whole and fits its frames."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import time
import tty
from pathlib import Path

import pytest

from atoll.domain.errors import Unavailable
from atoll.domain.process import ProcessSpec
from atoll.sidekick import protocol as wire
from atoll.sidekick import reading
from atoll.sidekick.client import Link
from atoll.sidekick.processes import READER_GRACE_S
from tests.sidekick.running import RunningSidekick, receive_all, send


async def test_a_list_of_many_wide_processes_fits_its_frames(sidekick: RunningSidekick) -> None:
    wide = ("sh", "-c", "exec sleep 100", "\U0001f30a" * 400)
    started: set[str] = set()
    for _ in range(420):
        stream = await sidekick.client.start(ProcessSpec(wide))
        started.add(stream.id)
        await stream.close()
    with sidekick.open() as sock:
        send(sock, wire.REQUEST, {"op": "processes"})
        pieces = await asyncio.to_thread(receive_all, sock)
    assert max(len(wire.json_frame(*piece)) for piece in pieces) <= wire.MAX_FRAME_BYTES
    listed = await sidekick.client.processes()
    assert {info.id for info in listed} == started
    assert all(len(" ".join(info.argv)) <= 256 for info in listed)
    await sidekick.client.stop_all(0)


async def test_how_a_program_ended_reaches_a_client_that_still_sends(sidekick: RunningSidekick) -> None:
    stream = await sidekick.client.start(ProcessSpec(("echo", "done"), stdin=True))
    await sidekick.client.wait(stream.id)
    async with asyncio.timeout(5):
        await stream.write_stdin(bytes(2_000_000))
        await stream.close_stdin()
        assert b"".join([data async for _, data in stream]) == b"done\n"
    assert stream.exit is not None and stream.exit.code == 0
    await stream.close()


LIBC_SIGNALS = 3 << 31  # 32 and 33 are its own
LARGE = 3_000_000  # of output: three rings
MAIN = {"argv": ["sh", "-c", f"head -c {LARGE} /dev/zero; exit 3"], "tty": False, "cols": 80, "rows": 24}


async def test_what_the_main_process_writes_waits_for_its_first_reader(tmp_path: Path) -> None:
    with RunningSidekick(tmp_path, main=MAIN) as sidekick:
        await asyncio.sleep(0.5)
        stream = await sidekick.client.attach("main")
        assert sum([len(data) async for _, data in stream]) == LARGE
        assert stream.exit is not None and stream.exit.code == 3
        await stream.close()


async def test_a_reader_that_does_not_come_is_waited_for_a_while_only(tmp_path: Path) -> None:
    with RunningSidekick(tmp_path, main=MAIN) as sidekick:
        began = time.monotonic()
        assert (await sidekick.client.wait("main")).code == 3
        assert time.monotonic() - began > READER_GRACE_S / 2
        stream = await sidekick.client.attach("main")
        assert stream.first_offset > LARGE - 2 * 2**20
        await stream.close()


async def test_programs_begin_with_no_signal_ignored(tmp_path: Path) -> None:
    """Whatever the server was started with: `nohup`, or a shell's `&`."""
    numbers = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTSTP}
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        running = RunningSidekick(tmp_path)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with running as sidekick:
        done = await sidekick.client.run(ProcessSpec(("grep", "SigIgn", "/proc/self/status")))
    assert int(done.stdout.split()[1], 16) & ~LIBC_SIGNALS == 0


async def test_the_client_believes_no_frame_that_is_larger_than_one_may_be() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(wire.HEADER.pack(wire.RESULT, wire.MAX_FRAME_BYTES + 1))
    with pytest.raises(Unavailable, match="frame of"):
        async with asyncio.timeout(1):
            await Link(reader, None).read()  # type: ignore[arg-type]


def test_what_a_terminal_has_is_taken_at_once_though_it_gives_little_at_a_time() -> None:
    text = bytes(range(1, 251)) * 48
    tries = [_reads(text) for _ in range(50)]
    # A busy kernel hands it over in pieces, now and then.
    assert any(len(sizes) == 1 and sizes[0] > 2 * reading.TERMINAL_BYTES for sizes in tries), tries


def _reads(text: bytes) -> list[int]:
    """What of it is read at a time, once all that the terminal takes is written."""
    ours, theirs = pty.openpty()
    try:
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        os.set_blocking(theirs, False)
        wanted, pieces = text[: os.write(theirs, text)], []
        until = time.monotonic() + 10
        while sum(map(len, pieces)) < len(wanted) and time.monotonic() < until:
            if piece := reading.read_terminal(ours):
                pieces.append(piece)
        assert b"".join(pieces) == wanted
        assert reading.read_terminal(ours) == b""
        return [len(piece) for piece in pieces]
    finally:
        os.close(theirs)
        assert reading.read_terminal(ours) == b""  # nor is there an error where nobody has it open any more
        os.close(ours)
