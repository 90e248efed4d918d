"""Every operation of this dialect, declared in one table; app.py makes the routes and the document of it."""

from __future__ import annotations

from atoll.services.lasting_sandboxes import LastingSandboxes
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.agents_sdk import exec as commands
from atoll.surfaces.agents_sdk import files, sandboxes
from atoll.surfaces.agents_sdk.errors import AgentsError
from atoll.surfaces.agents_sdk.exec import ExecHandlers
from atoll.surfaces.agents_sdk.files import FileHandlers
from atoll.surfaces.agents_sdk.pty import COLS, ROWS, TerminalHandlers
from atoll.surfaces.agents_sdk.sandboxes import SandboxHandlers
from atoll.surfaces.operation import BYTES, WEBSOCKET, Answer, Once, Operation

SANDBOX = "/v1/sandbox/{id}"
GONE = (404, 409)  # errors of everything that acts in a sandbox
TAG = "openai-agents"
PTY_TEXT = """Text frames control, binary ones are what is typed and shown: `{type: ready}` comes first,
`{type: exit, code}` last, `{type: resize, cols, rows}` may be sent. The shell ends with the connection."""
EXEC_TEXT = """Server-sent events: `stdout` and `stderr` with base64, then `exit` with `{exit_code, timed_out}`, or
`error` with `{error, code}`. A client that disconnects ends the command."""


def operations(service: Sandboxes, lasting: LastingSandboxes, settings: Settings) -> list[Operation]:
    """What this dialect serves."""
    of = SandboxHandlers(service, lasting, settings)
    done = Answer(200, "it is done", sandboxes.AgentsDoneAnswer)
    return [
        Operation(
            "POST", "/v1/sandbox", of.create, "agentsCreateSandbox", "Create a sandbox with an empty /workspace",
            answers=(Answer(200, "its id", sandboxes.AgentsSandboxAnswer),),
            body=sandboxes.SandboxBody, body_required=False, errors=(400, 402, 404, 409, 413, 501, 503, 504),
            tag=TAG, error=AgentsError, once=Once.MADE,
        ),
        Operation(
            "DELETE", SANDBOX, of.delete, "agentsDeleteSandbox", "End a sandbox",
            answers=(done,), errors=(*GONE, 504), tag=TAG, error=AgentsError,
        ),
        Operation(
            "GET", SANDBOX + "/running", of.running, "agentsRunning", "Whether it runs, or the next use wakes it",
            answers=(Answer(200, "whether it does", sandboxes.AgentsRunningAnswer),), errors=(404,),
            tag=TAG, error=AgentsError,
        ),
        Operation(
            "POST", SANDBOX + "/mount", of.mount, "agentsMount", "Buckets are not mounted: says what is possible",
            answers=(done,), body=sandboxes.MountBody, errors=(400, *GONE, 413, 501), tag=TAG, error=AgentsError,
        ),
        Operation(
            "POST", SANDBOX + "/unmount", of.unmount, "agentsUnmount", "Buckets are not mounted",
            answers=(done,), body=sandboxes.UnmountBody, errors=(400, *GONE, 413, 501), tag=TAG, error=AgentsError,
        ),
        *_work(service, lasting, settings),
    ]  # fmt: skip


def _work(service: Sandboxes, lasting: LastingSandboxes, settings: Settings) -> list[Operation]:
    runs, of = ExecHandlers(service, lasting, settings), FileHandlers(service, lasting, settings)
    shells = TerminalHandlers(service, lasting)
    done = Answer(200, "it is done", sandboxes.AgentsDoneAnswer)
    return [
        Operation(
            "POST", SANDBOX + "/exec", runs.exec, "agentsExec", "Run a command and follow it",
            answers=(Answer(200, "its output and its end", None, commands.MEDIA),),
            body=commands.ExecBody, errors=(400, 402, *GONE, 413, 501, 503, 504), tag=TAG, error=AgentsError,
            description=EXEC_TEXT,
        ),
        Operation(
            WEBSOCKET, SANDBOX + "/pty", shells.open, "agentsTerminal",
            "A shell in a terminal (WebSocket)",
            answers=(Answer(101, "the stream"),), parameters=(COLS, ROWS), errors=(400, *GONE, 426),
            tag=TAG, error=AgentsError, description=PTY_TEXT,
        ),
        Operation(
            "GET", SANDBOX + "/file/{path:path}", of.read, "agentsReadFile", "The bytes of a file",
            answers=(Answer(200, "its bytes", None, BYTES),), errors=(400, *GONE, 504), tag=TAG, error=AgentsError,
        ),
        Operation(
            "PUT", SANDBOX + "/file/{path:path}", of.write, "agentsWriteFile", "Replace a file; parents are made",
            answers=(done,), body=BYTES, body_required=False, errors=(400, *GONE, 413, 504), tag=TAG, error=AgentsError,
        ),
        Operation(
            "POST", SANDBOX + "/persist", of.persist, "agentsPersist", "/workspace as a tar archive",
            answers=(Answer(200, "the archive", None, files.TAR),), parameters=(files.EXCLUDES,),
            errors=(400, *GONE, 413, 501, 503, 504), tag=TAG, error=AgentsError,
        ),
        Operation(
            "POST", SANDBOX + "/hydrate", of.hydrate, "agentsHydrate", "Unpack a tar archive into /workspace, inside",
            answers=(done,), body=BYTES, errors=(400, *GONE, 413, 501, 503, 504), tag=TAG, error=AgentsError,
        ),
    ]  # fmt: skip
