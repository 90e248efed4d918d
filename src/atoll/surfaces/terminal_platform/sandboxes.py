"""The Sandbox API: make a sandbox on the caller's default workspace, run commands in it, keep it, show its ports."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import NotFound, QuotaExceeded
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec, RunResult
from atoll.domain.workspace import MOUNT_POINT
from atoll.services.home_sandboxes import HomeSandboxes
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model, unless_disconnected
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.terminal_platform.sandbox_config import AskedConfig, spec_of
from atoll.surfaces.words import words
from atoll.telemetry.trace import trace_of

EXEC_S = 15  # what a command has where its request does not say
EXEC_S_MAX = 86_400
TIMED_OUT = "Execution timed out"
# By the program that runs them; a shell runs what has no other.
SUFFIXES = {
    "python": ".py", "python3": ".py", "node": ".mjs", "nodejs": ".mjs", "deno": ".ts", "bun": ".ts", "ruby": ".rb",
    "perl": ".pl", "php": ".php", "bash": ".sh", "sh": ".sh",
}  # fmt: skip
PYTHON = 'command -v python >/dev/null && exec python "$@"; exec python3 "$@"'
# The code comes in by standard input, and lies beside what it may want to import for as long as it runs.
RUN_CODE = """trap 'rm -f "$0"' EXIT; trap 'exit 143' TERM
cat > "$0" || exit
case $1 in python) command -v python >/dev/null || { shift; set -- python3 "$@"; };; esac
"$@" "$0" </dev/null"""


class SandboxBody(AnswerModel):
    """POST /sandboxes."""

    sandbox_id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="an id of your own, which no other live sandbox of yours has"
    )
    sandbox_config: AskedConfig = None


class SandboxExecBody(AnswerModel):
    """POST /sandboxes/{id}/exec."""

    command: Annotated[str, Field(min_length=1, max_length=131_072)] = Field(
        description="the program; without args it is split by shell-word rules"
    )
    args: list[str] | None = None
    code: str | None = Field(None, description="what the program is to run; then args are ignored")
    timeout: Annotated[int, Field(ge=1, le=EXEC_S_MAX)] = Field(EXEC_S, description="seconds")
    requires_native: bool = Field(False, description="every sandbox is a whole machine: it makes no difference")

    def spec(self) -> ProcessSpec:
        argv = (self.command, *self.args) if self.args else words(self.command, "command")
        if self.code is not None:
            program = argv[0].rsplit("/", 1)[-1]
            script = f".atoll-{secrets.token_hex(8)}{SUFFIXES.get(program, '')}"
            argv = ("sh", "-c", RUN_CODE, f"./{script}", *(words(self.command, "command")))
        elif argv[0] == "python":
            argv = ("sh", "-c", PYTHON, *argv)
        return ProcessSpec(argv=argv, timeout_s=self.timeout, stdin=self.code is not None)


class SandboxPreviewBody(AnswerModel):
    """POST /sandboxes/{id}/preview."""

    port: Annotated[int, Field(ge=1, le=65_535)]


class SandboxMountBody(AnswerModel):
    """POST /sandboxes/{id}/mount."""

    alias: Annotated[str, Field(min_length=1, max_length=255)]
    target: Annotated[str, Field(min_length=1, max_length=4_096)]


class SandboxMadeAnswer(AnswerModel):
    sandbox_id: str
    workspace: str


class SandboxDeletedAnswer(AnswerModel):
    message: str


class SandboxExecAnswer(AnswerModel):
    """`error` alone when a quota is used up; else the rest."""

    stdout: str | None = None
    stderr: str | None = None
    exit_code: int | None = None
    error: Literal["quota_exceeded"] | None = None


class SandboxPreviewAnswer(AnswerModel):
    url: str


class SandboxKeptAnswer(AnswerModel):
    status: Literal["ok"]


class SandboxDoneAnswer(AnswerModel):
    success: Literal[True]


class Show(Protocol):
    """Registers a port to be shown, and says where, for who reaches this server at `base`."""

    async def __call__(self, principal: Principal, sandbox_id: str, port: int, base: str) -> str: ...


class SandboxHandlers:
    """One method for each operation."""

    def __init__(self, homes: HomeSandboxes, sandboxes: Sandboxes, show: Show, settings: Settings) -> None:
        self._homes = homes
        self._sandboxes = sandboxes
        self._show = show
        self._body_bytes = settings.server.body_bytes
        self._output_bytes = settings.limits.run_output_bytes
        self._defaults = settings.limits.defaults.resources()

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SandboxBody, self._body_bytes, optional=True)
        made = await self._homes.create(
            principal,
            spec_of(body.sandbox_config or {}, self._defaults),
            own_id=body.sandbox_id,
            request_id=trace_of(request.scope).request_id,
        )
        return json_response({"sandbox_id": body.sandbox_id or made.id, "workspace": MOUNT_POINT})

    async def delete(self, request: Request, principal: Principal) -> Response:
        ref = request.path_params["id"]
        try:
            sandbox_id = await self._homes.resolve(principal, ref)
            await self._sandboxes.end(principal, sandbox_id, request_id=trace_of(request.scope).request_id)
        except NotFound:
            raise NotFound(f"sandbox {ref} not found") from None
        return json_response({"message": f"Sandbox {ref} deleted successfully."})

    async def exec(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SandboxExecBody, self._body_bytes)
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        work = self._sandboxes.processes.run(
            principal,
            sandbox_id,
            body.spec(),
            stdin=(body.code or "").encode(),
            max_output_bytes=self._output_bytes,
        )
        try:
            # Nobody could learn the result of a command whose client has gone: it is ended with the request.
            result = await unless_disconnected(request.receive, work)
        except QuotaExceeded:
            trace_of(request.scope).events += 1  # nothing was done that the audit trail would tell of
            return json_response({"error": "quota_exceeded"})
        return json_response(_ran(result))

    async def keepalive(self, request: Request, principal: Principal) -> Response:
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        await self._sandboxes.keepalive(principal, sandbox_id, request_id=trace_of(request.scope).request_id)
        return json_response({"status": "ok"})

    async def preview(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SandboxPreviewBody, self._body_bytes)
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        base = str(request.base_url).rstrip("/")
        return json_response({"url": await self._show(principal, sandbox_id, body.port, base)})

    async def mount(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SandboxMountBody, self._body_bytes)
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        await self._sandboxes.host_mounts.mount(principal, sandbox_id, body.alias, body.target)
        return json_response({"success": True})


def _ran(result: RunResult) -> dict[str, Any]:
    end = result.exit
    code = end.code if end.signal is None else -end.signal
    if end.timed_out:
        return {"stdout": "", "stderr": TIMED_OUT, "exit_code": code}
    return {
        "stdout": result.stdout.decode(errors="replace"),
        "stderr": result.stderr.decode(errors="replace"),
        "exit_code": code,
    }
