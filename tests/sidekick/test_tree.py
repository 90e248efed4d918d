"""Trees: what came from a program ends with it; of a job's, also what has left for a session of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from atoll.domain.process import ProcessSpec
from atoll.sidekick.tree import JOB
from tests.sidekick.running import RunningSidekick

# sleeps whose parent has ended: one in a session of its own, which ignores TERM, and one that says of which job it is
LEFT = f"""trap '' TERM
(setsid sleep 71 & echo $! > one)
({JOB}=another setsid sleep 71 & echo $! > other)
until [ -s one ] && [ -s other ]; do sleep 0.01; done
sleep 71"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("job", [{JOB: "x"}, {}], ids=["a job", "another process"])
async def test_all_of_a_job_ends_with_it_into_whatever_session_it_went(tmp_path: Path, job: dict[str, str]) -> None:
    with RunningSidekick(tmp_path) as sidekick:
        stream = await sidekick.client.start(ProcessSpec(("sh", "-c", LEFT), job))
        async with asyncio.timeout(10):
            while not all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in ("one", "other")):
                await asyncio.sleep(0.01)
        one, other = (int((tmp_path / name).read_text()) for name in ("one", "other"))
        try:
            assert alive(one) and alive(other)
            await sidekick.client.stop(stream.id, 0.1)
            async with asyncio.timeout(10):
                while job and alive(one):
                    await asyncio.sleep(0.01)
            assert (alive(one), alive(other)) == (not job, True)
        finally:
            await stream.close()
            for pid in (one, other):
                if alive(pid):
                    os.kill(pid, 9)
