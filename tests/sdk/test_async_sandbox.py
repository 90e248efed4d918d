from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atoll import AsyncSandbox
from atoll.sdk import NotFound
from tests.sdk.cutting_proxy import CuttingProxy
from tests.sdk.stand_in import StandIn
from tests.sdk.test_process import MANY_LINES, MANY_LINES_TEXT


async def test_run_files_and_streams_work_with_await(server: StandIn, tmp_path: Path) -> None:
    async with await AsyncSandbox.create() as sandbox:
        assert (await sandbox.run("echo hi")).stdout == "hi\n"
        await sandbox.files.write("/f", "text")
        assert await sandbox.files.read("/f") == "text"
        assert await sandbox.files.download("/f", tmp_path / "f") == 4
        assert await sandbox.files.upload(tmp_path / "f", "/g") == 4
        async with await sandbox.exec(["cat"]) as process:
            await process.write("said\n")
            await process.close_stdin()
            assert [chunk.data async for chunk in process] == [b"said\n"]
        with pytest.raises(NotFound):
            await sandbox.files.read("/none")
    assert (await sandbox.info()).state == "killed"


async def test_callbacks_may_be_coroutines(server: StandIn) -> None:
    seen: list[str] = []

    async def on_stdout(text: str) -> None:
        await asyncio.sleep(0)
        seen.append(text)

    async with await AsyncSandbox.create() as sandbox:
        result = await sandbox.run(["cat"], stdin="x" * 1_000_000, on_stdout=on_stdout)
    assert len("".join(seen)) == len(result.stdout) == 1_000_000


async def test_a_hundred_at_once(server: StandIn) -> None:
    async def one(n: int) -> str:
        async with await AsyncSandbox.create() as sandbox:
            return (await sandbox.run(["echo", str(n)])).stdout

    assert await asyncio.gather(*(one(n) for n in range(100))) == [f"{n}\n" for n in range(100)]


async def test_a_cancelled_call_does_not_spoil_the_next(server: StandIn) -> None:
    async with await AsyncSandbox.create() as sandbox:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await sandbox.run("sleep 5; echo late")
            assert (await sandbox.run("echo next")).stdout == "next\n"


async def test_output_survives_cuts_whole_and_once(server: StandIn, proxy: CuttingProxy) -> None:
    proxy.cuts = [1000, 70_000, 300]
    async with await AsyncSandbox.create() as sandbox, await sandbox.exec(MANY_LINES) as process:
        assert b"".join([chunk.data async for chunk in process]) == MANY_LINES_TEXT


async def test_reading_and_writing_in_two_tasks_reconnect_together(server: StandIn, proxy: CuttingProxy) -> None:
    async with await AsyncSandbox.create() as sandbox, await sandbox.exec(["cat"]) as process:
        seen = bytearray()

        async def read() -> None:
            async for chunk in process:
                seen.extend(chunk.data)

        reading = asyncio.create_task(read())
        for n in range(5):
            await process.write(f"{n}\n")
            while not seen.endswith(f"{n}\n".encode()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            proxy.cut_all()
            await asyncio.sleep(0.05)
        await process.close_stdin()
        await asyncio.wait_for(reading, 10)
        assert bytes(seen) == b"0\n1\n2\n3\n4\n"


async def test_what_is_written_while_a_reader_looks_for_the_server_arrives(server: StandIn) -> None:
    async with await AsyncSandbox.create() as sandbox, await sandbox.exec(["cat"]) as process:
        lost = asyncio.Event()
        process.on_reconnect = lambda connected: None if connected else lost.set()
        reading = asyncio.create_task(process.read(20))
        await asyncio.to_thread(server.stop)
        await asyncio.wait_for(lost.wait(), 10)
        writing = asyncio.create_task(process.write("typed while away\n"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(writing, 20)
        chunk = await reading
        assert chunk is not None
        assert chunk.data == b"typed while away\n"


def test_one_program_may_use_several_event_loops(server: StandIn) -> None:
    async def once() -> str:
        async with await AsyncSandbox.create() as sandbox:
            return (await sandbox.run("echo hi")).stdout

    assert [asyncio.run(once()) for _ in range(3)] == ["hi\n"] * 3
