"""Runs the server in this process: one per data folder, ready when it says so, drained when it is told to end.

`atoll up` calls `serve`; it prints nothing. Tests call `listening` to serve an application of their own.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import structlog
import uvicorn
from starlette.types import ASGIApp

from atoll.app import Application, create_app
from atoll.composition.mounting import Beside
from atoll.domain.errors import Unavailable
from atoll.records.data_folder import DataFolderLock
from atoll.services.owner_key import OwnerKey
from atoll.settings import Settings, environment_name
from atoll.surfaces.crowd import Crowd
from atoll.surfaces.serving import http_config
from atoll.telemetry import logs

_log = structlog.get_logger("atoll.serve")
FILES = 65_536
FORCED_DRAIN_S = 1.0  # that cancelled requests get to let go
LOOK_AGAIN_MAX_S = 0.1


@dataclass(frozen=True, slots=True)
class Ready:
    """What whoever started the server may want to tell."""

    url: str
    owner_key: OwnerKey | None
    beside: Mapping[str, str]  # URLs of what has a port of its own, by name


async def serve(settings: Settings, ready: Callable[[Ready], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises what keeps the server from starting, before `ready` is called."""
    logs.configure(settings.logs.format, settings.logs.level)
    _raise_file_limit()
    _write_no_cores()
    app = create_app(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        # the port first: a server that cannot have it starts no part of it
        listener = _listen_for(settings)
        async with AsyncExitStack() as stack:
            stack.callback(listener.close)
            others = app.beside
            sockets = [_listen_beside(one, stack) for one in others]
            await stack.enter_async_context(app.running())
            served = [(app, listener), *zip((one.app for one in others), sockets, strict=True)]
            url, *urls = await stack.enter_async_context(accepting_all(served, settings, app.drain))
            beside = dict(zip((one.name for one in others), urls, strict=True))
            _log.info("ready", url=url, runtime=app.runtime.name, **beside)
            if ready is not None:
                ready(Ready(url, app.owner_key, beside))
            await stop.wait()
            _log.info("draining", drain_s=settings.server.drain_s)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def listening(app: Application, listener: socket.socket | None = None) -> AsyncGenerator[str]:
    """Accept connections for an application that is running; its URL. At the end open requests get `drain_s`.

    WebSockets are closed at once with 1012 "service restart": their processes go on, and clients come back.
    """
    settings = app.settings.server
    listener = listener or listen(settings.host, settings.port)
    async with accepting(app, app.settings, listener, app.drain) as url:
        yield url


@asynccontextmanager
async def accepting(
    app: ASGIApp, settings: Settings, listener: socket.socket, drain: Callable[[], None] | None = None
) -> AsyncGenerator[str]:
    """As `listening`, of any application; `drain` is called when no more connections are to come."""
    async with accepting_all([(app, listener)], settings, drain) as (url,):
        yield url


@asynccontextmanager
async def accepting_all(
    served: Sequence[tuple[ASGIApp, socket.socket]], settings: Settings, drain: Callable[[], None] | None = None
) -> AsyncGenerator[list[str]]:
    """Of applications at a socket each, which drain at the same time; their URLs."""
    running: list[tuple[_Server, asyncio.Task[None]]] = []
    crowd = _crowd(settings)
    try:
        for app, listener in served:
            server = _Server(http_config(app, settings, crowd))
            task = asyncio.create_task(server.serve([listener]), name="http server")
            running.append((server, task))
            await server.accepting(task)
        yield [_url(listener) for _, listener in served]
    finally:
        if drain is not None:
            drain()
        for server, _ in running:
            server.stop()
        ended = await asyncio.gather(*(task for _, task in running), return_exceptions=True)
        await asyncio.gather(*(_let_go(server) for server, _ in running))
        for error in ended:
            if isinstance(error, Exception):  # not that one was cancelled
                raise error


class _Server(uvicorn.Server):
    """uvicorn without its own ideas about signals and exits, and without ten looks at a flag each second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stop.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # 0 renews the date that answers carry
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stop.wait()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which waits for a tenth of a second at least, and looks ten times a second from then on."""
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        pause_s = 0.001
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while state.connections or state.tasks:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LOOK_AGAIN_MAX_S)
        for task in state.tasks:
            task.cancel()

    async def accepting(self, task: asyncio.Task[None]) -> None:
        """Returns once connections are accepted; raises what stopped the server instead."""
        while not self.started:
            if task.done():
                task.result()
                raise Unavailable("the HTTP server ended before it began")
            await asyncio.sleep(0.001)


async def _let_go(server: uvicorn.Server) -> None:
    """Requests that outlived the drain were cancelled: let them end before what they use is closed."""
    if server.server_state.tasks:
        await asyncio.wait(server.server_state.tasks, timeout=FORCED_DRAIN_S)


def _write_no_cores() -> None:
    """Keys and values of secrets are in memory. A limit of 1 also keeps them from a program that takes cores; the hard
    one stays, for sandboxes set their own."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (1 if hard else 0, hard))


def _raise_file_limit() -> None:
    """Each stream holds two descriptors, and the usual limit is 1,024; sandboxes have a limit of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _crowd(settings: Settings) -> Crowd:
    """Half of the files that may be open are kept for what the server does: a stream holds a second one."""
    server = settings.server
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = server.connections if soft == resource.RLIM_INFINITY else min(server.connections, soft // 2)
    proxies = [ip_network(one, strict=False) for one in server.trusted_proxies]
    return Crowd(most, server.connections_per_address, proxies)


def _listen_for(settings: Settings) -> socket.socket:
    try:
        return listen(settings.server.host, settings.server.port)
    except Unavailable:
        if settings.folder.lock.exists():  # the likeliest holder of the port: this folder's own server
            lock = DataFolderLock(settings.folder)
            lock.acquire()
            lock.release()
        raise


def _listen_beside(one: Beside, stack: AsyncExitStack) -> socket.socket:
    """Closed with the stack."""
    found = listen(one.address.host, one.address.port, environment_name(one.address.setting))
    stack.callback(found.close)
    return found


def listen(host: str, port: int, setting: str = "--port, ATOLL_PORT") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.set_inheritable(False)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = f"another program does (another port: {setting})" if taken else error
        raise Unavailable(f"cannot listen on {host}:{port}: {why}") from error
    return listener


def _url(listener: socket.socket) -> str:
    """Where a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    address = ip_address(host)
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
