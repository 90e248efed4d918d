"""The operations of the sidekick API that run, keep files and tell events; app.py makes the routes of them."""

from __future__ import annotations

from atoll.services.daemon.commands import Commands
from atoll.services.daemon.hub import Hubs
from atoll.services.daemon.terminals import DaemonTerminals
from atoll.services.sandboxes import Sandboxes
from atoll.services.terminals import Terminals
from atoll.settings import Settings
from atoll.surfaces.operation import WEBSOCKET, Answer, Operation
from atoll.surfaces.sidekick import answers, batch, commands, files, terminals
from atoll.surfaces.sidekick.batch import BatchHandler
from atoll.surfaces.sidekick.commands import TIMEOUT, CommandHandlers
from atoll.surfaces.sidekick.declared import COOKIE, DAEMON, GONE, TAG, declared
from atoll.surfaces.sidekick.errors import SidekickError
from atoll.surfaces.sidekick.files import CONTENT, PATH, FileHandlers
from atoll.surfaces.sidekick.large import LargeAnswers
from atoll.surfaces.sidekick.socket import PROTOCOL, Events
from atoll.surfaces.sidekick.terminals import TerminalHandlers

EVENTS_TEXT = """Messages are `{type, channel?, data?}`. From the client, as JSON text or in ComputeSDK's binary form:
subscribe and unsubscribe (channel), terminal:input {terminal_id, input}, terminal:resize {terminal_id, cols, rows},
command:start {cmd_id}. To the client, always as JSON text: terminal:created, terminal:output, terminal:destroyed,
terminal:error, command:stdout, command:stderr, command:exit, and what watchers, signals and child sandboxes tell.
Whoever subscribes to a terminal is told first what its ring still has. A client that does not read is closed with 1013.
"""


def operations(sandboxes: Sandboxes, named: Terminals, hubs: Hubs, settings: Settings) -> list[Operation]:
    """What this part of the dialect serves."""
    run = Commands(sandboxes, hubs, output_bytes=settings.limits.run_output_bytes)
    shells, large = DaemonTerminals(sandboxes, named, run, hubs), LargeAnswers()
    return [
        *_commands(CommandHandlers(sandboxes, run, shells, large, settings)),
        *_files(FileHandlers(sandboxes, large, settings), BatchHandler(sandboxes, settings)),
        *_terminals(TerminalHandlers(shells, settings)),
        Operation(
            WEBSOCKET, DAEMON + "/ws", Events(sandboxes, hubs, run).connect, "daemonEvents",
            "Terminals, streamed commands and events of a sandbox (WebSocket)",
            answers=(Answer(101, "the messages"),), parameters=(PROTOCOL,), errors=(*GONE, 426), tag=TAG,
            description=EVENTS_TEXT, error=SidekickError, token_in_query=True, subprotocol=True, cookie=COOKIE,
        ),
    ]  # fmt: skip


def _commands(of: CommandHandlers) -> list[Operation]:
    ran = (Answer(200, "how it ended and what it wrote, or under which id it goes on", answers.RanAnswer),)
    ends = "A client that disconnects ends a command that it waits for."
    return [
        declared(
            "POST", "/run/command", of.run, "daemonRunCommand", "Run a command",
            ran, body=commands.CommandBody, errors=(402, 413, 503, 504), description=ends,
        ),
        declared(
            "POST", "/execute", of.execute, "daemonExecute", "Run a command",
            ran, body=commands.ExecuteBody, errors=(402, 413, 503, 504), description=ends,
        ),
        declared(
            "POST", "/run/code", of.code, "daemonRunCode", "Run a piece of code",
            (Answer(200, "how it ended and what it wrote", answers.CodeAnswer),),
            body=commands.CodeBody, errors=(402, 413, 503, 504), description=ends,
        ),
        declared(
            "POST", "/terminals/{terminal}/execute", of.run_in_terminal, "daemonRunInTerminal",
            "Run a command under a terminal's name", ran,
            body=commands.TerminalCommandBody, errors=(402, 413, 503, 504), description=ends,
        ),
        declared(
            "GET", "/terminals/{terminal}/commands", of.list, "daemonListCommands", "A terminal's commands",
            (Answer(200, "those that run and those that ended lately", answers.CommandsAnswer),),
        ),
        declared(
            "GET", "/terminals/{terminal}/commands/{cmd}", of.get, "daemonGetCommand", "Look at a command",
            (Answer(200, "with what it wrote", answers.CommandAnswer),), errors=(504,),
        ),
        declared(
            "GET", "/terminals/{terminal}/commands/{cmd}/wait", of.wait, "daemonWaitForCommand",
            "Wait for a command's end", (Answer(200, "with what it wrote", answers.CommandAnswer),),
            parameters=(TIMEOUT,), errors=(504,),
        ),
    ]  # fmt: skip


def _files(of: FileHandlers, many: BatchHandler) -> list[Operation]:
    written = answers.FileAnswer
    return [
        declared(
            "GET", "/files", of.list, "daemonListFiles", "List a directory",
            (Answer(200, "its entries", answers.FilesAnswer),), parameters=(PATH,),
        ),
        declared(
            "POST", "/files", of.write, "daemonWriteFile", "Write a file (parents are made)",
            (Answer(201, "what was written", written),), body=files.FileBody, errors=(413, 504),
        ),
        declared(
            "POST", "/files/batch", many.change, "daemonChangeFiles", "Write and delete many files",
            (
                Answer(200, "all were done", answers.BatchAnswer),
                Answer(batch.PARTLY, "some were not", answers.BatchAnswer),
            ),
            body=batch.BatchBody, errors=(413, 503, 504),
        ),
        declared(
            "GET", "/files/{path:path}", of.read, "daemonReadFile", "Look at a file, or read it",
            (Answer(200, "what it is", written),), parameters=(CONTENT,), errors=(413, 504),
        ),
        declared(
            "HEAD", "/files/{path:path}", of.look, "daemonFileExists", "Whether there is such a file",
            (Answer(200, "there is", {}),),
        ),
        declared(
            "PUT", "/files/{path:path}", of.replace, "daemonReplaceFile", "Write a file (parents are made)",
            (Answer(200, "what was written", written),), body=files.ContentBody, errors=(413, 504),
        ),
        declared(
            "DELETE", "/files/{path:path}", of.remove, "daemonRemoveFile", "Remove a file or a whole directory",
            (Answer(204, "it is gone"),), errors=(413,),
        ),
    ]  # fmt: skip


def _terminals(of: TerminalHandlers) -> list[Operation]:
    one = answers.TerminalAnswer
    return [
        declared(
            "POST", "/terminals", of.create, "daemonCreateTerminal", "A new shell, or a name for commands",
            (Answer(201, "the terminal", one),), body=terminals.TerminalBody, body_required=False,
            errors=(402, 413, 503, 504),
        ),
        declared(
            "GET", "/terminals", of.list, "daemonListTerminals", "The terminals that are open",
            (Answer(200, "the terminals", answers.TerminalsAnswer),),
        ),
        declared(
            "GET", "/terminals/{terminal}", of.get, "daemonGetTerminal", "Look at a terminal",
            (Answer(200, "the terminal", one),),
        ),
        declared(
            "DELETE", "/terminals/{terminal}", of.close, "daemonCloseTerminal", "End a terminal, with what runs in it",
            (Answer(204, "it is gone"),), errors=(504,),
        ),
    ]  # fmt: skip
