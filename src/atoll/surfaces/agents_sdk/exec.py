"""Run a command: its output as server-sent events of base64, its end as the last one.

`stdout` and `stderr` carry base64, `exit` carries `{exit_code, timed_out}`, `error` carries `{error, code}`. Whoever
goes away before the end ends the command: the protocol has no way back to it.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import AtollError
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.services.lasting_sandboxes import LastingSandboxes
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.sidekick.client import ProcessStream
from atoll.sidekick.protocol import STDERR
from atoll.surfaces.bodies import Stream, begun, close_iterator, json_bytes, read_model
from atoll.surfaces.models import BodyModel
from atoll.surfaces.statuses import status_and_code
from atoll.telemetry.trace import trace_of

MEDIA = "text/event-stream"
KEEP_ALIVE_S = 15.0
TIMED_OUT = 124  # as timeout(1) says it
STARTED = b": started\n\n"

Word = Annotated[str, Field(max_length=131_072)]


class ExecBody(BodyModel):
    """POST /v1/sandbox/{id}/exec."""

    argv: Annotated[list[Word], Field(min_length=1, max_length=65_536)] = Field(description="run without a shell")
    timeout_ms: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        None, description="its whole tree is ended after this time, and its exit code is 124"
    )
    cwd: str | None = Field(None, max_length=4096, description="default: /workspace")
    env: dict[str, Word] | None = None

    def spec(self) -> ProcessSpec:
        timeout_s = None if self.timeout_ms is None else self.timeout_ms / 1000
        return ProcessSpec(tuple(self.argv), dict(self.env or {}), self.cwd or None, timeout_s=timeout_s)


class ExecHandlers:
    """One method for each operation."""

    def __init__(self, sandboxes: Sandboxes, lasting: LastingSandboxes, settings: Settings) -> None:
        self._lasting = lasting
        self._processes = sandboxes.processes
        self._body_bytes = settings.server.body_bytes

    async def exec(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, ExecBody, self._body_bytes)
        request_id = trace_of(request.scope).request_id
        sandbox_id = await self._lasting.usable(principal, request.path_params["id"], request_id=request_id)
        stream = await self._processes.start(principal, sandbox_id, body.spec())
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", "atoll-process": stream.id}
        events = await begun(self._events(principal, sandbox_id, stream))
        return Stream(events, headers=headers, media_type=MEDIA)

    async def _events(self, principal: Principal, sandbox_id: str, stream: ProcessStream) -> AsyncGenerator[bytes]:
        output = aiter(stream)
        try:
            yield STARTED
            async for piece in _kept_alive(output):
                yield piece
            yield _exit(stream)
        except AtollError as error:
            yield _event(b"error", json_bytes({"error": error.message, "code": status_and_code(error)[1]}))
        finally:
            await close_iterator(output)
            await self._processes.leave(principal, sandbox_id, stream)


async def _kept_alive(output: AsyncIterator[tuple[int, bytes]]) -> AsyncGenerator[bytes]:
    """The output as events, and comments while there is none: what lies between forgets silent connections."""
    coming: asyncio.Future[tuple[int, bytes] | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(_next(output))
            done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE_S)
            if not done:
                yield b": it goes on\n\n"
                continue
            piece, coming = coming.result(), None
            if piece is None:
                return
            kind, data = piece
            yield _event(b"stderr" if kind == STDERR else b"stdout", b64encode(data))
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def _next(output: AsyncIterator[tuple[int, bytes]]) -> tuple[int, bytes] | None:
    return await anext(output, None)


def _exit(stream: ProcessStream) -> bytes:
    end = stream.exit
    if end is None:
        return _event(b"error", json_bytes({"error": "the end of the process is not known", "code": "UNAVAILABLE"}))
    code = TIMED_OUT if end.timed_out else end.code
    return _event(b"exit", json_bytes({"exit_code": code, "timed_out": end.timed_out}))


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name, data)
