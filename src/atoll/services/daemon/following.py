"""Following: the terminals and commands whose output one listener is told, each from its process to the listener.

The sidekick API's WebSocket makes one for each of its clients. Each stream waits for its own listener only.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
from contextlib import suppress
from typing import Any

import structlog

from atoll.domain.errors import AtollError, DeadlineExceeded, Forbidden, Internal, NotFound, QuotaExceeded
from atoll.domain.principal import Principal
from atoll.domain.process import Exit, ProcessInfo
from atoll.services import terminals as named
from atoll.services.daemon import commands, terminals
from atoll.services.daemon.hub import Hub, Listener, event
from atoll.services.processes import Processes
from atoll.sidekick.client import ProcessStream
from atoll.sidekick.protocol import STDERR, STDOUT

_log = structlog.get_logger()

STREAMS_MAX = 64  # of one listener
INPUT_S = 10.0  # for a terminal to take what was typed
CLOSE_S = 2.0
TERMINAL, COMMAND = "terminal:", "command:"


class Stream:
    """A process's output on its way to one listener. `quiet`: it is only there for input."""

    def __init__(self, task: asyncio.Task[None], *, quiet: bool) -> None:
        self.task = task
        self.quiet = quiet
        self.opened: asyncio.Future[ProcessStream] = asyncio.get_running_loop().create_future()
        self.takes_input = True


class Following:
    """The streams of one listener."""

    def __init__(
        self, processes: Processes, principal: Principal, sandbox_id: str, hub: Hub, listener: Listener
    ) -> None:
        self._processes = processes
        self._principal = principal
        self._sandbox_id = sandbox_id
        self._hub = hub
        self._listener = listener
        self._streams: dict[str, Stream] = {}
        self._leaving: set[asyncio.Task[None]] = set()  # that are about to end

    def follow(self, channel: str) -> None:
        """Tell the listener what the channel's process writes: a terminal's from the beginning that its ring still
        has, a command's from where the last one who followed it left. Where there is no such process nothing happens.
        """
        there = self._streams.get(channel)
        if there is not None and there.quiet:
            self._leave(channel)
            there = None
        if there is None and channel.startswith((TERMINAL, COMMAND)):
            self._open(channel, quiet=False)

    async def unfollow(self, channel: str) -> None:
        """Returns when its stream is closed: who follows the channel next begins where this one was."""
        task = self._leave(channel)
        if task is not None:
            await asyncio.wait((task,))

    async def type(self, name: str, data: bytes) -> None:
        """Into a terminal; waits until it takes it. NotFound, Forbidden, DeadlineExceeded."""
        stream = await self._terminal(name)
        try:
            async with asyncio.timeout(INPUT_S):
                await stream.write_stdin(data)
        except TimeoutError:
            raise DeadlineExceeded(f"the terminal took no input for {INPUT_S:g} s") from None

    async def resize(self, name: str, cols: int, rows: int) -> None:
        """Of a terminal. NotFound, Forbidden, DeadlineExceeded."""
        stream = await self._terminal(name)
        try:
            async with asyncio.timeout(INPUT_S):
                await stream.resize(cols, rows)
        except TimeoutError:
            raise DeadlineExceeded("the terminal does not answer") from None

    async def close(self) -> None:
        """Returns when every stream is closed, those that were left before too."""
        for channel in list(self._streams):
            self._leave(channel)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _leave(self, channel: str) -> asyncio.Task[None] | None:
        found = self._streams.pop(channel, None)
        if found is None:
            return None
        self._leaving.add(found.task)
        found.task.add_done_callback(self._leaving.discard)
        found.task.cancel()
        return found.task

    async def _terminal(self, name: str) -> ProcessStream:
        channel = terminals.channel_of(name)
        if channel not in self._streams:
            self._open(channel, quiet=True)
        found = self._streams[channel]
        stream = await asyncio.shield(found.opened)
        if not found.takes_input:
            raise Forbidden
        return stream

    def _open(self, channel: str, *, quiet: bool) -> None:
        if len(self._streams) + len(self._leaving) >= STREAMS_MAX:
            raise QuotaExceeded(f"this socket follows {STREAMS_MAX} terminals and commands already")
        task = asyncio.create_task(self._run(channel, quiet=quiet), name=f"follow {channel}")
        self._streams[channel] = Stream(task, quiet=quiet)

    async def _run(self, channel: str, *, quiet: bool) -> None:
        own = self._streams[channel]
        try:
            found = await self._find(channel)
            if found is None:
                raise NotFound("terminal not found" if channel.startswith(TERMINAL) else "command not found")
            stream = await self._attach(own, channel, found)
            own.opened.set_result(stream)
            try:
                await self._tell(channel, found, stream, quiet=quiet)
            finally:
                if channel.startswith(COMMAND) and stream.exit is None:
                    self._hub.leave(channel, stream.offset)
                await _closed(stream)
        except AtollError as error:
            await self._broke(channel, error, own)
        except Exception:
            _log.exception("daemon.stream_fault", channel=channel)
            await self._broke(channel, Internal("the stream broke off"), own)
        finally:
            if not own.opened.done():
                own.opened.cancel()
            if self._streams.get(channel) is own:
                del self._streams[channel]

    async def _find(self, channel: str) -> ProcessInfo | None:
        kind, _, name = channel.partition(":")
        there = await self._processes.list(self._principal, self._sandbox_id)
        if kind == TERMINAL.rstrip(":"):
            return next((one for one in reversed(there) if one.label == named.LABEL + name), None)
        ours = (one for one in map(commands.command_in, there) if one is not None)
        return next((one.process for one in ours if one.id == name), None)

    async def _attach(self, own: Stream, channel: str, found: ProcessInfo) -> ProcessStream:
        offset = found.output_end if own.quiet else self._hub.resumed(channel) if channel.startswith(COMMAND) else 0
        try:
            return await self._processes.attach(self._principal, self._sandbox_id, found.id, offset=offset)
        except Forbidden:
            own.takes_input = False
            return await self._processes.attach(
                self._principal, self._sandbox_id, found.id, offset=offset, output_only=True
            )

    async def _tell(self, channel: str, found: ProcessInfo, stream: ProcessStream, *, quiet: bool) -> None:
        form = _terminal_form(channel) if channel.startswith(TERMINAL) else _command_form(found)
        async for kind, data in stream:
            if not quiet:
                for message in form.output(kind, data):
                    await self._listener.put(message)
        if not quiet and stream.exit is not None:
            for message in form.end(stream.exit):
                await self._listener.put(message)

    async def _broke(self, channel: str, error: AtollError, own: Stream) -> None:
        """Nothing more will come. A command whose end nobody knows ends all the same for who waits for it."""
        if not own.opened.done():
            own.opened.set_exception(error)
            own.opened.exception()  # nobody may wait for it
            if isinstance(error, NotFound):
                return  # there was nothing yet: a command that waits for its start, or a terminal that has gone
        if own.quiet:
            return
        if channel.startswith(TERMINAL):
            await self._listener.put(event("terminal:error", channel, {"error": error.message}))
            return
        data = {"cmd_id": channel.removeprefix(COMMAND), "exit_code": -1, "error": error.message}
        await self._listener.put(event("command:exit", channel, data))


class _Form:
    """How a process's output is told."""

    def __init__(self, channel: str, same: dict[str, Any]) -> None:
        self.channel = channel
        self.same = same
        self._decoders = {
            kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in (STDOUT, STDERR)
        }  # a character may be cut in two

    def text(self, kind: int, data: bytes, *, final: bool = False) -> str:
        return self._decoders[kind].decode(data, final)

    def output(self, kind: int, data: bytes) -> list[str]:
        raise NotImplementedError

    def end(self, exit_: Exit) -> list[str]:
        raise NotImplementedError


class _Raw(_Form):
    def output(self, kind: int, data: bytes) -> list[str]:
        return [event("terminal:output", self.channel, {"output": self.text(kind, data), "encoding": "raw"})]

    def end(self, exit_: Exit) -> list[str]:
        return [event("terminal:destroyed", self.channel, self.same | {"exit_code": exit_.code})]


class _Base64(_Raw):
    def output(self, kind: int, data: bytes) -> list[str]:
        text = base64.b64encode(data).decode()
        return [event("terminal:output", self.channel, {"output": text, "encoding": "base64"})]


class _OfCommand(_Form):
    def output(self, kind: int, data: bytes) -> list[str]:
        return self._told(kind, self.text(kind, data))

    def end(self, exit_: Exit) -> list[str]:
        rest = [message for kind in (STDOUT, STDERR) for message in self._told(kind, self.text(kind, b"", final=True))]
        return [*rest, event("command:exit", self.channel, self.same | {"exit_code": exit_.code})]

    def _told(self, kind: int, text: str) -> list[str]:
        name = "command:stdout" if kind == STDOUT else "command:stderr"
        return [event(name, self.channel, self.same | {"output": text})] if text else []


def _terminal_form(channel: str) -> _Form:
    name = channel.removeprefix(TERMINAL)
    form = _Base64 if terminals.encoding_of(name) == terminals.BASE64 else _Raw
    return form(channel, {"id": name})


def _command_form(found: ProcessInfo) -> _Form:
    command = commands.command_in(found)
    assert command is not None
    return _OfCommand(commands.channel_of(command.id), {"terminal_id": command.terminal, "cmd_id": command.id})


async def _closed(stream: ProcessStream) -> None:
    with suppress(AtollError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await stream.close()
