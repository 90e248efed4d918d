"""Terminals: processes with a PTY."""

from __future__ import annotations

from atoll.domain.process import ProcessSpec
from atoll.sidekick.client import SidekickClient
from atoll.sidekick.protocol import STDOUT
from atoll.testing.runtime_conformance.suite import Suite, read_all, read_until, sh


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
        stream = await inside.start(ProcessSpec(("sh", "-c", "echo ready; sleep 100"), tty=True))
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
