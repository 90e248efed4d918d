"""Terminals: processes with a PTY."""

from __future__ import annotations

import asyncio
import signal

from atoll.domain.process import ProcessSpec
from atoll.sidekick.client import SidekickClient
from atoll.sidekick.protocol import STDOUT
from atoll.testing.runtime_conformance.suite import PATIENCE_S, Suite, read_all, read_until, sh


class TerminalChecks(Suite):
    async def test_a_terminal_is_one_with_one_stream(self, inside: SidekickClient) -> None:
        stream = await inside.start(ProcessSpec(("sh", "-c", "tty; echo err >&2"), tty=True))
        pieces = [piece async for piece in stream]
        assert {kind for kind, _ in pieces} == {STDOUT}
        output = b"".join(data for _, data in pieces)
        assert output.startswith(b"/dev/pts/")
        assert output.endswith(b"err\r\n")
        await stream.close()
        assert (await sh(inside, "tty")).exit.code == 1

    async def test_its_size_is_told_and_changes(self, inside: SidekickClient) -> None:
        script = "stty size; cat > /tmp/line; stty size"
        stream = await inside.start(ProcessSpec(("sh", "-c", script), tty=True, cols=100, rows=30))
        await read_until(stream, b"30 100\r\n")
        await stream.resize(132, 50)
        await stream.write_stdin(b"\x04")
        assert b"50 132\r\n" in await read_all(stream)
        await stream.close()

    async def test_what_is_typed_echoes_and_arrives(self, inside: SidekickClient) -> None:
        stream = await inside.start(ProcessSpec(("cat",), tty=True))
        await stream.write_stdin(b"typed\r")
        await read_until(stream, b"typed\r\ntyped\r\n")
        await stream.close_stdin()
        await read_all(stream)
        assert stream.exit is not None
        assert stream.exit.code == 0
        await stream.close()

    async def test_control_c_interrupts(self, inside: SidekickClient) -> None:
        stream = await inside.start(ProcessSpec(("sh", "-c", "echo ready; exec sleep 100"), tty=True))
        await read_until(stream, b"ready\r\n")
        await stream.write_stdin(b"\x03")
        await read_all(stream)
        assert stream.exit is not None
        assert stream.exit.code == 130
        await stream.close()

    async def test_a_terminal_outlives_its_client(self, inside: SidekickClient) -> None:
        first = await inside.start(ProcessSpec(("cat",), tty=True))
        await first.write_stdin(b"one\r")
        await read_until(first, b"one\r\none\r\n")
        await first.close()
        second = await inside.attach(first.id, first.offset)
        await second.write_stdin(b"two\r")
        assert await read_until(second, b"two\r\ntwo\r\n") == b"two\r\ntwo\r\n"
        await inside.stop(first.id, 0)
        await second.close()

    async def test_stopping_hangs_up_on_a_shell_that_ignores_term(self, inside: SidekickClient) -> None:
        self.need("shell", "proc")
        for stop_all in (False, True):
            shell = await inside.start(ProcessSpec(("bash", "--norc", "-i"), tty=True))
            await shell.write_stdin(b"echo re''ady\r")
            await read_until(shell, b"ready\r\n")
            async with asyncio.timeout(PATIENCE_S):
                await (inside.stop_all(5000) if stop_all else inside.stop(shell.id, 5000))
            assert (await inside.wait(shell.id)).signal == signal.SIGHUP
            await shell.close()

    async def test_the_jobs_of_a_shell_end_in_good_order_before_it_hangs_up(self, inside: SidekickClient) -> None:
        self.need("shell", "proc")
        shell = await inside.start(ProcessSpec(("bash", "--norc", "-i"), tty=True))
        job = "sh -c \"trap 'sleep 0.5; echo good >/tmp/order; exit' TERM; echo re''ady; while :; do sleep 0.1; done\""
        await shell.write_stdin(f"{job}\r".encode())
        await read_until(shell, b"ready\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await inside.stop(shell.id, 1000)
        assert (await sh(inside, "cat /tmp/order")).stdout == b"good\n"
        await shell.close()

    async def test_what_is_stopped_hears_that_it_shall_end(self, inside: SidekickClient) -> None:
        self.need("shell", "proc")
        stream = await inside.start(ProcessSpec(("sh", "-c", "trap 'exit 3' TERM; kill -STOP $$; sleep 100 & wait")))
        await sh(inside, f"until grep -q '^State:.T' /proc/{stream.pid}/status; do sleep 0.02; done")
        async with asyncio.timeout(PATIENCE_S):
            assert (await inside.stop(stream.id, 1000)).code == 3
        await stream.close()
