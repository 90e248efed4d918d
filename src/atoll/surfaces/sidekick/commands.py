"""The handlers that run something: a command, a piece of code, and what was run under a terminal's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import QuotaExceeded
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec, RunResult
from atoll.services.daemon.commands import FOREGROUND_S, ONE_OFF, WAIT_MAX_S, Asked, Command, Commands, Output
from atoll.services.daemon.languages import argv_for, detected
from atoll.services.daemon.terminals import DaemonTerminals
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.bodies import read_model, unless_disconnected
from atoll.surfaces.models import BodyModel
from atoll.surfaces.operation import Parameter
from atoll.surfaces.sidekick import answers
from atoll.surfaces.sidekick.errors import done, enveloped
from atoll.surfaces.sidekick.large import LARGE_BYTES, LargeAnswers

Line = Annotated[str, Field(min_length=1, description="a line for the shell")]
Shell = Annotated[str, Field(min_length=1, max_length=4096, description="default: bash where there is one, else sh")]
Wrote = TypeVar("Wrote", RunResult, Output)
TIMEOUT = Parameter("timeout", "seconds; as it is then, when it has not ended", int, minimum=0, maximum=86_400)


class CommandBody(BodyModel):
    """POST /run/command."""

    command: Line
    shell: Shell | None = None
    background: bool | None = Field(None, description="answer at once; it goes on by itself")
    stream: bool | None = Field(None, description="answer at once; it begins with the message command:start")
    cwd: Annotated[str, Field(min_length=1)] | None = None
    env: dict[str, str] | None = None
    timeout: float | None = Field(None, gt=0, le=FOREGROUND_S, description="seconds, of one that is waited for")

    def asked(self) -> Asked:
        return Asked(self.command, self.shell, self.cwd, self.env or {}, self.timeout)


class ExecuteBody(BodyModel):
    """POST /execute."""

    command: Line
    shell: Shell | None = None
    background: bool | None = None


class TerminalCommandBody(BodyModel):
    """POST /terminals/{terminal}/execute; `async` is the old name of `background`."""

    command: Line
    background: bool | None = None
    async_: bool | None = Field(None, alias="async")


class CodeBody(BodyModel):
    """POST /run/code."""

    code: str
    language: str | None = Field(None, max_length=32, description="default: what the code looks like")


class CommandHandlers:
    """One method for each operation."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        commands: Commands,
        terminals: DaemonTerminals,
        large: LargeAnswers,
        settings: Settings,
    ) -> None:
        self._processes = sandboxes.processes
        self._commands = commands
        self._terminals = terminals
        self._large = large
        self._body_bytes = settings.server.body_bytes
        self._output_bytes = settings.limits.run_output_bytes

    async def run(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, CommandBody, self._body_bytes)
        if body.stream:
            sandbox_id, asked = request.path_params["id"], body.asked()
            command_id = await self._commands.prepare(principal, sandbox_id, asked)
            return done("Command is ready", answers.begun(command_id, ONE_OFF, body.command, "pending"))
        return await self._run(request, principal, body.asked(), ONE_OFF, background=bool(body.background))

    async def execute(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, ExecuteBody, self._body_bytes)
        asked = Asked(body.command, body.shell)
        return await self._run(request, principal, asked, ONE_OFF, background=bool(body.background), merged=True)

    async def run_in_terminal(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, TerminalCommandBody, self._body_bytes)
        terminal = request.path_params["terminal"]
        await self._terminals.check(principal, request.path_params["id"], terminal)
        background = bool(body.background or body.async_)
        return await self._run(request, principal, Asked(body.command), terminal, background=background)

    async def code(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, CodeBody, self._body_bytes)
        language = body.language or detected(body.code)
        argv, stdin = argv_for(body.code, language)
        spec = ProcessSpec(argv, timeout_s=FOREGROUND_S)
        work = self._processes.run(
            principal, request.path_params["id"], spec, stdin=stdin, max_output_bytes=self._output_bytes
        )

        def data(result: RunResult) -> answers.Json:
            return {
                "output": answers.text(result.stdout + result.stderr),
                "exit_code": result.exit.code,
                "language": language,
                "truncated": result.truncated,
            }

        return await self._told(principal, "Code executed", await unless_disconnected(request.receive, work), data)

    async def list(self, request: Request, principal: Principal) -> Response:
        terminal = await self._terminal(request, principal)
        found = await self._commands.list(principal, request.path_params["id"], terminal)
        items = [answers.command_item(one) for one in found]
        return done("Commands", {"commands": items, "count": len(items)})

    async def get(self, request: Request, principal: Principal) -> Response:
        sandbox_id, terminal = request.path_params["id"], await self._terminal(request, principal)
        found = await self._commands.get(principal, sandbox_id, request.path_params["cmd"], terminal)
        return await self._details(principal, sandbox_id, found)

    async def wait(self, request: Request, principal: Principal) -> Response:
        """TIMEOUT, else X-Request-Timeout, else as long as anybody may wait."""
        sandbox_id, terminal = request.path_params["id"], await self._terminal(request, principal)
        seconds = TIMEOUT.number(request)
        if seconds is None:
            header = request.headers.get("x-request-timeout", "")
            seconds = int(header) if header.isascii() and header.isdigit() and len(header) < 6 else WAIT_MAX_S
        work = self._commands.wait(principal, sandbox_id, request.path_params["cmd"], seconds, terminal)
        found = await unless_disconnected(request.receive, work)
        return await self._details(principal, sandbox_id, found)

    async def _run(
        self,
        request: Request,
        principal: Principal,
        asked: Asked,
        terminal: str,
        *,
        background: bool,
        merged: bool = False,
    ) -> Response:
        def data(told: answers.Json) -> answers.Json:
            return told | {"output": told["stdout"] + told["stderr"]} if merged else told

        sandbox_id = request.path_params["id"]
        if background:
            command_id = await self._commands.start(principal, sandbox_id, asked, terminal)
            return done("Command executed", data(answers.begun(command_id, terminal, asked.command, "running")))
        # Nobody could learn the result of a command whose client has gone: it is ended with the request.
        work = self._commands.run(principal, sandbox_id, asked, terminal)
        command_id, result = await unless_disconnected(request.receive, work)
        return await self._told(
            principal,
            "Command executed",
            result,
            lambda result: data(answers.ran(command_id, terminal, asked.command, result)),
        )

    async def _details(self, principal: Principal, sandbox_id: str, command: Command) -> Response:
        output = await self._commands.output(principal, sandbox_id, command)
        return await self._told(principal, "Command", output, lambda output: answers.command_details(command, output))

    async def _told(
        self, principal: Principal, message: str, wrote: Wrote, data: Callable[[Wrote], answers.Json]
    ) -> Response:
        """What a command wrote: cut, where its owner reads too much else at once, since a refusal would have it run
        again."""
        if len(wrote.stdout) + len(wrote.stderr) <= LARGE_BYTES:
            return done(message, data(wrote))

        async def told() -> answers.Json:
            return enveloped(message, data(wrote))

        try:
            return await self._large.answer(principal.id, told)
        except QuotaExceeded:
            half = LARGE_BYTES // 2
            cut = replace(wrote, stdout=wrote.stdout[:half], stderr=wrote.stderr[:half], truncated=True)
            return done(message, data(cut))

    async def _terminal(self, request: Request, principal: Principal) -> str:
        """The terminal that the path names; NotFound."""
        name = request.path_params["terminal"]
        return (await self._terminals.get(principal, request.path_params["id"], name)).id
