"""A STAND-IN for a model, not a model: it answers as scripted lines of the prompt say, in the providers' own forms.

Tests, `make demo` and benches run it in place of a provider: `python -m atoll.testing.model_stand_in --port 0`, or
`async with ModelStandIn() as model` in a test (`model.url`, `model.log`). It serves `POST /v1/responses`,
`/v1/chat/completions`, `/v1/messages`, `/v1/messages/count_tokens` and `GET /v1/models`, streaming and not.

A script is the lines of the last prompt that begin with one of these words; all other lines are prose:

    run: echo hi > f          call the shell tool that the request offers (exec_command, shell, Bash, ...); its result
                              begins the next turn, which goes on below this line
    call: NAME {"a": 1}       call any tool, by its name there
    say: text                 the answer, a word at a time; {result} is what the last tool answered
    think: text               reasoning
    usage: input=6548 output=108 cached=0 reasoning=0 (created=0: written to a cache, Messages)
                              the tokens of this turn and all after it; else about a fourth of the bytes. `usage: none`
                              tells nothing, `usage: twice` twice, input=-5 or input=abc what no provider should
    wait: 0.5                 seconds until what comes next;    slow: 0.05  between all events from now on
    silent                    no answer at all, not even its head;    hang  nothing more, but the connection stays
    break                     the connection is cut;    end  the stream ends here without its last events
    error: 500 text           that status and an error in the provider's form (429 and 503 with Retry-After: 7)
    fail: text                an error event within the stream
    garbage                   bytes that are neither JSON nor events;    gzip  the answer is compressed unasked
    clock: 100                so many words of the answer, each the machine's monotonic time when it is said
    flood: 1000000            so many bytes of events;    line: 1000000  one line of so many bytes

A prompt without any gets a sentence that says who answers. Without tools in the request calls are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from atoll.testing.model_forms import ChatCompletions, Event, Form, Messages, Responses
from atoll.testing.model_scripts import Step, Turn, turn_of

LOG_MAX = 10_000
MODELS = ("stand-in", "gpt-5-codex", "claude-sonnet-4-5")
FORMS: dict[str, type[Form]] = {
    "/v1/responses": Responses,
    "/v1/chat/completions": ChatCompletions,
    "/v1/messages": Messages,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it came: whoever looks for what must not be in one looks at all of it."""

    method: str
    path: str  # with its query
    headers: Sequence[tuple[str, str]]
    body: bytes

    def __contains__(self, text: str) -> bool:
        whole = f"{self.path}\n" + "\n".join(f"{name}: {value}" for name, value in self.headers)
        return text in whole or text.encode() in self.body

    @property
    def header(self) -> Mapping[str, str]:
        return dict(self.headers)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Broken(Exception):
    """The script cuts the connection."""


class ModelStandIn:
    """A server on the loopback between `async with` and its end. With a `key`, other credentials are refused."""

    def __init__(self, port: int = 0, key: str | None = None) -> None:
        self.log: list[Asked] = []
        self.left = 0  # answers whose client went away before their end
        self._key = key
        self._over = asyncio.Event()  # who hangs waits for it
        # a protocol that is not named would leave asyncio without TCP_NODELAY, and events would wait for each other
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(128)
        self._serving: asyncio.Task[None] | None = None
        routes = [Route(path, self._answer, methods=["GET", "POST"]) for path in FORMS]
        routes.append(Route("/v1/messages/count_tokens", self._count, methods=["POST"]))
        routes.append(Route("/v1/models", self._models))
        self._server = _Server(
            uvicorn.Config(
                _Quiet(Starlette(routes=routes)),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )

    @property
    def url(self) -> str:
        """Without a path: Anthropic's base URL; OpenAI's is this and /v1."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self._server.serve([self._socket]), name="stand-in model")
        await self._server.begun.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        self._server.ended.set()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
        self._socket.close()

    async def run(self) -> None:
        """Until somebody cancels it."""
        async with self:
            assert self._serving is not None
            await asyncio.shield(self._serving)

    async def _answer(self, request: Request) -> Response:
        body = await self._note(request)
        kind = FORMS[request.url.path]
        if request.method == "GET":
            status = 426 if request.headers.get("upgrade") else 405
            return JSONResponse(kind.error(status, "not over this"), status, {"Upgrade": "HTTP/1.1"})
        if refused := self._refused(request, kind):
            return refused
        try:
            form = kind(json.loads(body), len(body))
        except ValueError:
            return JSONResponse(kind.error(400, "the body is not JSON"), 400)
        return await self._play(form, turn_of(form.conversation(), form.tools()), request)

    async def _play(self, form: Form, turn: Turn, request: Request) -> Response:
        for step in turn.steps:
            if step.kind == "error":
                status, _, message = step.text.partition(" ")
                headers = {"Retry-After": "7"} if status in ("429", "503", "529") else None
                return JSONResponse(form.error(int(status), message or "as scripted"), int(status), headers)
            if step.kind == "silent":
                await self._until_gone(request)
                return Response()
            if step.kind == "wait" and not form.streamed:
                await asyncio.sleep(float(step.text))
        kinds = {step.kind for step in turn.steps}
        if form.streamed:
            stream = self._stream(form, turn)
            if "gzip" in kinds:
                whole = gzip.compress(b"".join([piece async for piece in stream]))
                return Response(whole, media_type="text/event-stream", headers={"Content-Encoding": "gzip"})
            return StreamingResponse(stream, media_type="text/event-stream")
        if "hang" in kinds:
            await self._until_gone(request)
        if "break" in kinds:
            return StreamingResponse(_cut(b'{"id":'), media_type="application/json")
        if "garbage" in kinds:
            return Response(b"\x00\xff{not JSON", media_type="application/json")
        flood = sum(int(step.text) for step in turn.steps if step.kind in ("flood", "line"))
        answer = form.whole(turn) | ({"padding": "x" * flood} if flood else {})
        if "gzip" in kinds:
            encoded = gzip.compress(json.dumps(answer).encode())
            return Response(encoded, media_type="application/json", headers={"Content-Encoding": "gzip"})
        return JSONResponse(answer)

    async def _stream(self, form: Form, turn: Turn) -> AsyncGenerator[bytes]:
        whole = False
        try:
            for made in form.events(turn):
                if isinstance(made, Event):
                    yield made.encoded()
                    if turn.pause_s:
                        await asyncio.sleep(turn.pause_s)
                elif made.kind == "end":
                    break
                else:
                    async for piece in self._act(form, made):
                        yield piece
            whole = True
        finally:
            self.left += not whole

    async def _count(self, request: Request) -> Response:
        body = await self._note(request)
        return self._refused(request, Messages) or JSONResponse({"input_tokens": len(body) // 4 + 1})

    async def _models(self, request: Request) -> Response:
        await self._note(request)
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "stand-in"} for name in MODELS]
        return self._refused(request, Responses) or JSONResponse({"object": "list", "data": models})

    async def _note(self, request: Request) -> bytes:
        body = await request.body()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if len(self.log) < LOG_MAX:
            self.log.append(Asked(request.method, path, request.headers.items(), body))
        return body

    def _refused(self, request: Request, kind: type[Form]) -> Response | None:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._key is None or self._key in (bearer, request.headers.get("x-api-key")):
            return None
        return JSONResponse(kind.error(401, "Incorrect API key provided"), 401)

    async def _act(self, form: Form, step: Step) -> AsyncIterator[bytes]:
        """What a step does to a stream, besides the events of its form."""
        if step.kind == "wait":
            await asyncio.sleep(float(step.text))
        elif step.kind == "hang":
            await self._over.wait()
        elif step.kind == "break":
            raise _Broken
        elif step.kind == "fail":
            yield _failed(form, step.text).encoded()
        elif step.kind == "garbage":
            yield b"data: {not JSON\n\nevent: \xff\xfe\ndata\n:\n\ndata: [1, 2\n\ndata: null\n\n\x00\x00\n\n"
        elif step.kind == "line":
            yield b"data: " + b"x" * int(step.text) + b"\n\n"
        elif step.kind == "flood":
            padding = b'data: {"type": "padding", "text": "' + b"x" * 64 + b'"}\n\n'
            for _ in range(int(step.text) // (len(padding) * 64) + 1):
                yield padding * 64
                await asyncio.sleep(0)

    async def _until_gone(self, request: Request) -> None:
        while not self._over.is_set() and not await request.is_disconnected():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), 0.05)


def _failed(form: Form, message: str) -> Event:
    if isinstance(form, Responses):
        failed = {"id": "resp_failed", "status": "failed", "error": {"code": "server_error", "message": message}}
        return Event("response.failed", {"type": "response.failed", "response": failed})
    return Event("error" if isinstance(form, Messages) else "", form.error(500, message))


async def _cut(first: bytes) -> AsyncIterator[bytes]:
    yield first
    raise _Broken


class _Quiet:
    """A connection that the script cuts is no fault to be told of."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(_Broken):
            await self._app(scope, receive, send)


class _Server(uvicorn.Server):
    """One that leaves the signals to whoever started it, and says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self.force_exit = True  # its end waits for no client; for what is being answered below

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun.set()

    async def main_loop(self) -> None:
        await self.ended.wait()
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted stand-in for a model. It is not a model.")
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1; 0: any that is free")
    parser.add_argument("--key", default=None, help="refuse other credentials")
    given = parser.parse_args()
    stand_in = ModelStandIn(cast(int, given.port), cast("str | None", given.key))
    print(f"stand-in model, not a real one, at {stand_in.url} (OpenAI: {stand_in.url}/v1)", flush=True)
    try:
        asyncio.run(stand_in.run())
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
