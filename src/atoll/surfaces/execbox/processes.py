"""The handlers of processes over plain HTTP: run to the end, list, signal, wait, and the main process's output."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import AtollError
from atoll.domain.principal import Principal
from atoll.domain.process import MAIN
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.sidekick.client import ProcessStream
from atoll.surfaces.bodies import Stream, json_response, read_model, unless_disconnected
from atoll.surfaces.execbox import answers
from atoll.surfaces.execbox.requests import ExecBody, SignalBody
from atoll.surfaces.execbox.streams import OFFSET, PROCESS
from atoll.surfaces.operation import Parameter

FOLLOW = Parameter("follow", "go on until the process ends", bool)
WAIT_TIMEOUT = Parameter("timeoutMs", "answer 504 after this time", int, minimum=1, maximum=2**53)


class ProcessHandlers:
    """One method for each operation."""

    def __init__(self, sandboxes: Sandboxes, settings: Settings) -> None:
        self._processes = sandboxes.processes
        self._body_bytes = settings.server.body_bytes
        self._output_bytes = settings.limits.run_output_bytes

    async def exec(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, ExecBody, self._body_bytes)
        work = self._processes.run(
            principal,
            request.path_params["id"],
            body.spec(),
            stdin=body.stdin_bytes(),
            max_output_bytes=min(body.maxOutputBytes or self._output_bytes, self._output_bytes),
        )
        # Nobody could learn the result of a command whose client has gone: it is ended with the request.
        result = await unless_disconnected(request.receive, work)
        return json_response(answers.exec_(result, body.encoding))

    async def list(self, request: Request, principal: Principal) -> Response:
        found = await self._processes.list(principal, request.path_params["id"])
        return json_response({"processes": [answers.process(info) for info in found]})

    async def signal(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SignalBody, self._body_bytes)
        number, process_id = body.number(), request.path_params["pid"]
        await self._processes.signal(principal, request.path_params["id"], process_id, number)
        return json_response({"processId": process_id, "signal": number})

    async def wait(self, request: Request, principal: Principal) -> Response:
        timeout_ms = WAIT_TIMEOUT.number(request)
        process_id = request.path_params["pid"]
        work = self._processes.wait(
            principal,
            request.path_params["id"],
            process_id,
            timeout_s=timeout_ms / 1000 if timeout_ms else None,
        )
        end = await unless_disconnected(request.receive, work)
        return json_response(answers.exit_(process_id, end))

    async def logs(self, request: Request, principal: Principal) -> Response:
        sandbox_id = request.path_params["id"]
        process_id = PROCESS.text(request) or MAIN
        follow = FOLLOW.flag(request)
        offset = OFFSET.number(request) or 0
        end = None if follow else await self._processes.output_end(principal, sandbox_id, process_id)
        stream = await self._processes.attach(principal, sandbox_id, process_id, offset=offset, output_only=True)
        return Stream(
            _output(stream, end),
            headers={"atoll-offset": str(stream.first_offset), "x-content-type-options": "nosniff"},
            media_type="text/plain; charset=utf-8",
        )


async def _output(stream: ProcessStream, end: int | None) -> AsyncIterator[bytes]:
    at = stream.first_offset
    try:
        if end is not None and at >= end:
            return
        async for _, data in stream:
            yield data if end is None else data[: end - at]
            at += len(data)
            if end is not None and at >= end:
                return
    except AtollError:
        return  # the sandbox ended meanwhile: what was read is all there is
    finally:
        await stream.close()
