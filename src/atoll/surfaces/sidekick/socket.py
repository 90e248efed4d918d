"""The WebSocket of a sandbox's events: what a client asks for goes to `services/daemon`, what happens comes back.

Four things run beside each other for each client: reading, writing, watching the connection and watching the sandbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound, QuotaExceeded
from atoll.domain.principal import Principal
from atoll.services.daemon.commands import Commands
from atoll.services.daemon.following import Following
from atoll.services.daemon.hub import CHANNEL_CHARACTERS, CHANNELS_MAX, Hubs, Listener, event
from atoll.services.daemon.terminals import channel_of
from atoll.services.sandboxes import Sandboxes
from atoll.surfaces.extensions import END, LOST
from atoll.surfaces.operation import Parameter
from atoll.surfaces.sidekick.frames import CHARACTERS_SHOWN, Malformed, Message, message_of

PROTOCOL = Parameter("protocol", "how the client sends; both ways are always read", choices=("binary", "json"))
SEND_S = 10.0  # for a client to take a message
LOOK_S = 10.0  # between looks at whether the sandbox is still there
CLOSE_GONE, CLOSE_INTERNAL, CLOSE_SLOW = 1001, 1011, 1013
SIZE_MAX = 65_535


class Events:
    """The WebSocket handler."""

    def __init__(self, sandboxes: Sandboxes, hubs: Hubs, commands: Commands) -> None:
        self._sandboxes = sandboxes
        self._hubs = hubs
        self._commands = commands

    async def connect(self, socket: WebSocket, principal: Principal) -> None:
        PROTOCOL.text(socket)
        sandbox_id = socket.path_params["id"]
        sandbox = await self._sandboxes.get(principal, sandbox_id)
        if sandbox.ended:
            raise Conflict(f"session not running: status={sandbox.state}")
        hub = self._hubs.of(sandbox_id)
        followers: list[Following] = []

        def started(channel: str) -> None:
            for one in followers:
                with suppress(QuotaExceeded):
                    one.follow(channel)

        with hub.listening(started) as listener:
            following = Following(self._sandboxes.processes, principal, sandbox_id, hub, listener)
            followers.append(following)
            client = _Client(socket, principal, sandbox_id, listener, following, self._commands)
            await socket.accept()
            try:
                await self._serve(client)
            finally:
                await following.close()

    async def _serve(self, client: _Client) -> None:
        tasks = [
            asyncio.create_task(work, name=f"events {client.sandbox_id}")
            for work in (client.read(), client.write(), client.lost(), self._ended(client))
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            if not task.cancelled() and (fault := task.exception()) is not None:
                raise fault

    async def _ended(self, client: _Client) -> None:
        """Returns once the sandbox has ended: nothing happens there any more."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                ended = (await self._sandboxes.get(client.principal, client.sandbox_id)).ended
            except NotFound:
                ended = True
            except AtollError:
                continue
            if ended:
                client.end(CLOSE_GONE, "the sandbox has ended")
                return


class _Client:
    """One connection."""

    def __init__(
        self,
        socket: WebSocket,
        principal: Principal,
        sandbox_id: str,
        listener: Listener,
        following: Following,
        commands: Commands,
    ) -> None:
        self.principal = principal
        self.sandbox_id = sandbox_id
        self._socket = socket
        self._listener = listener
        self._following = following
        self._commands = commands

    def end(self, code: int, reason: str) -> None:
        """Does not wait for a client that takes nothing."""
        end: Callable[[int, str], bool] | None = self._socket.scope["extensions"].get(END)
        if end is not None:
            end(code, reason)

    async def lost(self) -> None:
        """While a terminal takes no input nothing is read: the client's leaving is told beside the messages too."""
        gone: asyncio.Event | None = self._socket.scope["extensions"].get(LOST)
        await (gone or asyncio.Event()).wait()

    async def write(self) -> None:
        while (message := await self._listener.next()) is not None:
            try:
                async with asyncio.timeout(SEND_S):
                    await self._socket.send_text(message)
            except TimeoutError:
                break
            except (WebSocketDisconnect, WebSocketDisconnected):
                return
        self.end(CLOSE_SLOW, "too slow for what happens here")

    async def read(self) -> None:
        """Returns when the client has gone. Waits for what it asks for: that is the backpressure."""
        while True:
            frame = await self._socket.receive()
            if frame["type"] == "websocket.disconnect":
                return
            data = frame.get("bytes")
            try:
                message = message_of(data if data is not None else frame.get("text", ""))
            except Malformed as error:
                await self._complain("", str(error))
                continue
            try:
                await self._act(message)
            except AtollError as error:
                await self._refuse(message, error)

    async def _act(self, message: Message) -> None:
        data = message.data
        match message.type:
            case "subscribe":
                self._subscribe(message.channel)
            case "unsubscribe":
                self._listener.channels.discard(message.channel)
                await self._following.unfollow(message.channel)
            case "terminal:input":
                typed = data.get("input", "")
                if not isinstance(typed, str | bytes):
                    raise InvalidInput("input must be text", field="input")
                name = _name(data, "terminal_id")
                await self._following.type(name, typed if isinstance(typed, bytes) else _utf8(typed))
            case "terminal:resize":
                cols, rows = _size(data, "cols"), _size(data, "rows")
                await self._following.resize(_name(data, "terminal_id"), cols, rows)
            case "command:start":
                await self._commands.begin(self.principal, self.sandbox_id, _name(data, "cmd_id"))
            case "ping":
                await self._listener.put(event("pong", "", {}))
            case _:
                raise InvalidInput(f"no message of type {message.type[:CHARACTERS_SHOWN]!r}")

    def _subscribe(self, channel: str) -> None:
        channels = self._listener.channels
        if not 0 < len(channel) <= CHANNEL_CHARACTERS or _told(channel) != channel:
            raise InvalidInput(f"channel must be text of 1 to {CHANNEL_CHARACTERS} characters", field="channel")
        if channel not in channels and len(channels) >= CHANNELS_MAX:
            raise QuotaExceeded(f"a socket subscribes to at most {CHANNELS_MAX} channels")
        channels.add(channel)
        self._following.follow(channel)

    async def _refuse(self, message: Message, error: AtollError) -> None:
        """In the words of whatever the message was for."""
        name = message.data.get("terminal_id")
        if message.type.startswith("terminal:") and isinstance(name, str):
            channel = channel_of(_told(name))
            await self._listener.put(event("terminal:error", channel, {"error": error.message}))
        else:
            await self._complain(message.channel, error.message)

    async def _complain(self, channel: str, text: str) -> None:
        await self._listener.put(event("error", _told(channel), {"error": text}))


def _told(name: str) -> str:
    """A client's own word, told back: JSON can name what is no character, and no message could hold."""
    return name[:CHANNEL_CHARACTERS].encode(errors="replace").decode()


def _name(data: dict[str, Any], field: str) -> str:
    name = data.get(field)
    if not isinstance(name, str) or not 0 < len(name) <= 128 or _told(name) != name:
        raise InvalidInput(f"{field} must be text of 1 to 128 characters", field=field)
    return name


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("input must be valid UTF-8", field="input") from None


def _size(data: dict[str, Any], field: str) -> int:
    """Binary messages know one kind of number only, which has a fraction."""
    value = data.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{field} must be a number", field=field)
    if not 1 <= value <= SIZE_MAX:  # nor is what is no number at all
        raise InvalidInput(f"{field} must be between 1 and {SIZE_MAX}", field=field)
    return int(value)
