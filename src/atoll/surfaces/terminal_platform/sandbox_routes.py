"""Every operation of the Sandbox API, declared in one table; served.py makes the routes and the document of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.services.home_sandboxes import HomeSandboxes
from atoll.services.jobs.jobs import Jobs
from atoll.services.sandbox_tokens import SandboxTokens
from atoll.services.sandboxes import Sandboxes
from atoll.services.terminals import Terminals
from atoll.settings import Settings
from atoll.surfaces.operation import WEBSOCKET, Answer, Once, Operation
from atoll.surfaces.terminal_platform import jobs, sandbox_files, sandboxes, terminal
from atoll.surfaces.terminal_platform.errors import DetailError
from atoll.surfaces.terminal_platform.jobs import JobHandlers
from atoll.surfaces.terminal_platform.sandbox_files import SandboxFileHandlers
from atoll.surfaces.terminal_platform.sandboxes import SandboxHandlers, Show
from atoll.surfaces.terminal_platform.terminal import TerminalHandlers
from atoll.surfaces.terminal_socket import PARAMETERS, TERMINAL_HEADERS, TERMINAL_TEXT

SANDBOX = "/sandboxes/{id}"
INSIDE = (404, 409, 501, 503, 504)  # of what happens in a sandbox, which may have to be made again for it
BODY = (400, 413, 422)
COMMON: dict[str, Any] = {"tag": "terminal platform", "error": DetailError}


@dataclass(frozen=True, slots=True)
class SandboxApi:
    """What this API needs of the services."""

    homes: HomeSandboxes
    sandboxes: Sandboxes
    terminals: Terminals
    jobs: Jobs
    tokens: SandboxTokens
    show: Show


def sandbox_operations(of: SandboxApi, settings: Settings) -> list[Operation]:
    """What it serves."""
    return [
        *_sandboxes(SandboxHandlers(of.homes, of.sandboxes, of.show, settings)),
        *_files(SandboxFileHandlers(of.homes, of.sandboxes, settings)),
        *_jobs(JobHandlers(of.homes, of.jobs, settings)),
        *_terminal(TerminalHandlers(of.homes, of.terminals, of.tokens)),
    ]


def _sandboxes(of: SandboxHandlers) -> list[Operation]:
    return [
        Operation(
            "POST", "/sandboxes", of.create, "createHomeSandbox", "Make a sandbox with your default workspace",
            answers=(Answer(200, "the sandbox", sandboxes.SandboxMadeAnswer),), body=sandboxes.SandboxBody,
            body_required=False, errors=(*BODY, 402, *INSIDE), once=Once.MADE, **COMMON,
        ),
        Operation(
            "DELETE", SANDBOX, of.delete, "deleteHomeSandbox", "End a sandbox and forget it",
            answers=(Answer(200, "it is gone", sandboxes.SandboxDeletedAnswer),), errors=INSIDE, **COMMON,
        ),
        Operation(
            "POST", f"{SANDBOX}/exec", of.exec, "execInHomeSandbox", "Run a command, or code, to its end",
            answers=(Answer(200, "how it ended and what it wrote", sandboxes.SandboxExecAnswer),),
            body=sandboxes.SandboxExecBody, errors=(*BODY, *INSIDE), once=Once.RAN, **COMMON,
        ),
        Operation(
            "POST", f"{SANDBOX}/preview", of.preview, "previewHomeSandbox", "Register a port to be shown",
            answers=(Answer(200, "where it is shown", sandboxes.SandboxPreviewAnswer),),
            body=sandboxes.SandboxPreviewBody, errors=(*BODY, *INSIDE), **COMMON,
        ),
        Operation(
            "POST", f"{SANDBOX}/keepalive", of.keepalive, "keepHomeSandboxAlive", "Restart its clocks",
            answers=(Answer(200, "it lives on", sandboxes.SandboxKeptAnswer),), errors=(422, *INSIDE), **COMMON,
        ),
        Operation(
            "POST", f"{SANDBOX}/mount", of.mount, "mountInHomeSandbox", "Mount a folder of the host",
            answers=(Answer(200, "it is mounted", sandboxes.SandboxDoneAnswer),), body=sandboxes.SandboxMountBody,
            errors=(*BODY, *INSIDE), **COMMON,
        ),
    ]  # fmt: skip


def _files(of: SandboxFileHandlers) -> list[Operation]:
    return [
        Operation(
            "POST", f"{SANDBOX}/files", of.write, "writeHomeFile", "Write a text file",
            answers=(Answer(200, "it is written", sandboxes.SandboxDoneAnswer),), body=sandbox_files.SandboxFileBody,
            errors=(*BODY, *INSIDE), **COMMON,
        ),
        Operation(
            "GET", f"{SANDBOX}/files", of.list, "listHomeFiles", "What is in a folder",
            answers=(Answer(200, "paths from the workspace's root on", sandbox_files.SandboxEntriesAnswer),),
            parameters=(sandbox_files.FOLDER,), errors=(400, 422, *INSIDE), **COMMON,
        ),
        Operation(
            "GET", SANDBOX + "/files/{path:path}", of.read, "readHomeFile", "Read a text file",
            answers=(Answer(200, "its text, without what is no UTF-8", sandbox_files.SandboxFileAnswer),),
            errors=(400, 413, 422, *INSIDE), **COMMON,
        ),
    ]  # fmt: skip


def _jobs(of: JobHandlers) -> list[Operation]:
    return [
        Operation(
            "POST", f"{SANDBOX}/background", of.start, "startJob", "Run a command again and again",
            answers=(Answer(200, "the job", jobs.JobStartedAnswer),), body=jobs.JobBody, errors=(*BODY, *INSIDE),
            once=Once.RAN, **COMMON,
        ),
        Operation(
            "GET", f"{SANDBOX}/background", of.list, "listJobs", "The jobs that run",
            answers=(Answer(200, "the jobs, with how often each ran", jobs.JobListAnswer),), errors=INSIDE, **COMMON,
        ),
        Operation(
            "DELETE", SANDBOX + "/background/{job}", of.stop, "stopJob", "Stop a job and all that it runs",
            answers=(Answer(200, "it is stopped", jobs.JobStoppedAnswer),), errors=INSIDE, **COMMON,
        ),
    ]  # fmt: skip


def _terminal(of: TerminalHandlers) -> list[Operation]:
    switching = Answer(101, "the terminal", None, headers=TERMINAL_HEADERS)
    return [
        Operation(
            WEBSOCKET, f"{SANDBOX}/terminal", of.open, "openTerminal", "A terminal (WebSocket)",
            answers=(switching,), parameters=PARAMETERS, errors=(422, 426, *INSIDE), token_in_query=True,
            subprotocol=True, description=TERMINAL_TEXT, **COMMON,
        ),
        Operation(
            "POST", f"{SANDBOX}/terminal/token", of.mint, "createTerminalToken", "A token that opens the terminal",
            answers=(Answer(200, "the token, good for a minute", terminal.TerminalTokenAnswer),),
            errors=(422, *INSIDE), **COMMON,
        ),
    ]  # fmt: skip
