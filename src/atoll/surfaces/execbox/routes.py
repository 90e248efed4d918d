"""Every operation of the execbox dialect, declared in one table; app.py makes the routes and the document of it."""

from __future__ import annotations

from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.execbox import answers, requests
from atoll.surfaces.execbox.files import DIRECTORY, LIST, MODE, PATH, RECURSIVE, STAT, FileHandlers
from atoll.surfaces.execbox.processes import FOLLOW, WAIT_TIMEOUT, ProcessHandlers
from atoll.surfaces.execbox.sessions import GRACE, LIMIT, PORT, REMOVE, STATUS, Sessions
from atoll.surfaces.execbox.streams import ATTACH_PARAMETERS, EXEC_PARAMETERS, OFFSET, PROCESS, Streams
from atoll.surfaces.execbox.watching import watch_operation
from atoll.surfaces.operation import BYTES, WEBSOCKET, Answer, Once, Operation

SESSION = "/v1/sessions/{id}"
FILES, PROCESSES = SESSION + "/files", SESSION + "/processes"
GONE = (404, 409)  # errors of everything that acts in a session
ATTACH_HEADERS = (
    ("Atoll-Process", "the process's id"),
    ("Atoll-Offset", "offset of the first output byte that follows"),
)
STREAM_TEXT = """One message is one WebSocket frame. Binary frames: 0x01 stdin, 0x02 stdout, 0x03 stderr, 0x05 error
(each followed by a big-endian u32 length and the bytes), 0x04 exit (u32 code), 0x06 stdin close (one byte), 0x07 resize
(u16 columns, u16 rows). With protocol=json the same messages are text:
{type: stdin|stdout|stderr|exit|error|stdin_close|resize, data?: base64, code?, cols?, rows?}.
A malformed message is answered with an error message, and the stream goes on. The exit message comes last."""


def operations(sandboxes: Sandboxes, settings: Settings) -> list[Operation]:
    """What this dialect serves."""
    return [
        *_sessions(Sessions(sandboxes, settings)),
        *_streams(Streams(sandboxes)),
        *_processes(ProcessHandlers(sandboxes, settings)),
        *_files(FileHandlers(sandboxes, settings)),
        watch_operation(sandboxes, SESSION + "/watch"),
    ]


def _sessions(of: Sessions) -> list[Operation]:
    session = Answer(200, "the session", answers.SessionAnswer)
    paused = Answer(200, "whether it is frozen now", answers.PausedAnswer)
    return [
        Operation(
            "POST", "/v1/sessions", of.create, "createSession", "Create a session",
            answers=(Answer(201, "the session, running", answers.SessionAnswer),),
            body=requests.CreateBody, errors=(400, 402, 404, 409, 413, 501, 503, 504), once=Once.MADE,
        ),
        Operation(
            "GET", "/v1/sessions", of.list, "listSessions", "List your sessions, newest first",
            answers=(Answer(200, "the sessions", answers.SessionsAnswer),),
            parameters=(STATUS, LIMIT), errors=(400,),
        ),
        Operation(
            "GET", SESSION, of.get, "getSession", "Look at a session",
            answers=(session,), errors=(404,),
        ),
        Operation(
            "DELETE", SESSION, of.kill, "killSession", "Kill a session",
            answers=(Answer(200, "how it ended", answers.StatusAnswer),),
            parameters=(REMOVE,), errors=(400, *GONE, 504),
        ),
        Operation(
            "POST", SESSION + "/stop", of.stop, "stopSession", "Stop a session: TERM, wait, KILL",
            answers=(Answer(200, "how it ended", answers.StatusAnswer),),
            parameters=(GRACE,), errors=(400, *GONE, 504),
        ),
        Operation(
            "POST", SESSION + "/keepalive", of.keepalive, "keepSessionAlive", "Restart a session's clocks",
            answers=(session,), body=requests.KeepaliveBody, body_required=False, errors=(400, *GONE, 413),
        ),
        Operation(
            "PUT", SESSION + "/network", of.network, "setSessionNetwork",
            "Change what a session with a list may reach: connections that the list does not have are cut",
            answers=(session,), body=requests.NetworkBody, errors=(400, *GONE, 413),
        ),
        Operation(
            "POST", SESSION + "/pause", of.pause, "pauseSession", "Freeze every process of a session",
            answers=(paused,), errors=(*GONE, 501),
        ),
        Operation(
            "POST", SESSION + "/suspend", of.suspend, "suspendSession",
            "Stop a session that has a workspace; its next use makes it again",
            answers=(Answer(200, "that it rests", answers.SuspendedAnswer),),
            parameters=(GRACE,), errors=(400, *GONE, 504),
        ),
        Operation(
            "POST", SESSION + "/resume", of.resume, "resumeSession", "Let a frozen or suspended session go on",
            answers=(paused,), errors=(402, *GONE, 429, 501, 503),
        ),
        Operation(
            "GET", SESSION + "/url", of.url, "getPortUrl", "Where an exposed port is reached",
            answers=(Answer(200, "its address", answers.UrlAnswer),),
            parameters=(PORT,), errors=(400, *GONE), tag="ports",
        ),
        Operation(
            "GET", "/v1/templates", of.templates, "listTemplates", "What `image` can name",
            answers=(Answer(200, "the templates", answers.TemplatesAnswer),), tag="templates",
        ),
    ]  # fmt: skip


def _streams(of: Streams) -> list[Operation]:
    switched = Answer(101, "the stream", None, headers=ATTACH_HEADERS)
    return [
        Operation(
            WEBSOCKET, SESSION + "/attach", of.attach, "attachSession",
            "Replay a process's output and follow it (WebSocket)",
            answers=(switched,), parameters=ATTACH_PARAMETERS, errors=(400, *GONE, 426),
            tag="processes", description=STREAM_TEXT,
        ),
        Operation(
            WEBSOCKET, SESSION + "/exec", of.exec, "execStream", "Start a process and attach to it (WebSocket)",
            answers=(switched,), parameters=EXEC_PARAMETERS, errors=(400, *GONE, 426),
            tag="processes", description=STREAM_TEXT,
        ),
    ]  # fmt: skip


def _processes(of: ProcessHandlers) -> list[Operation]:
    return [
        Operation(
            "POST", SESSION + "/exec", of.exec, "exec", "Run a command to its end",
            answers=(Answer(200, "how it ended and what it wrote", answers.ExecAnswer),),
            body=requests.ExecBody, errors=(400, 402, *GONE, 413, 503, 504), tag="processes", once=Once.RAN,
            description="A client that disconnects ends the command, unless the request has an Idempotency-Key.",
        ),
        Operation(
            "GET", PROCESSES, of.list, "listProcesses", "List the processes started through this API",
            answers=(Answer(200, "the processes", answers.ProcessesAnswer),), errors=GONE, tag="processes",
        ),
        Operation(
            "POST", PROCESSES + "/{pid}/signal", of.signal, "signalProcess", "Signal a process's group",
            answers=(Answer(200, "what was sent", answers.SignalAnswer),),
            body=requests.SignalBody, errors=(400, *GONE, 413), tag="processes",
        ),
        Operation(
            "GET", PROCESSES + "/{pid}/wait", of.wait, "waitForProcess", "Wait for a process's end",
            answers=(Answer(200, "how it ended", answers.ExitAnswer),),
            parameters=(WAIT_TIMEOUT,), errors=(400, *GONE, 504), tag="processes",
        ),
        Operation(
            "GET", SESSION + "/logs", of.logs, "readLogs", "The output of the main process",
            answers=(
                Answer(200, "stdout and stderr as they came", None, "text/plain", headers=ATTACH_HEADERS[1:]),
            ),
            parameters=(FOLLOW, OFFSET, PROCESS), errors=(400, *GONE), tag="processes",
        ),
    ]  # fmt: skip


def _files(of: FileHandlers) -> list[Operation]:
    return [
        Operation(
            "GET", FILES, of.read, "readFile", "Download a file, list a directory or look at either",
            answers=(
                Answer(200, "the file's bytes", None, BYTES, headers=(("Atoll-Mode", "octal mode"),)),
                Answer(200, "with list=true: its entries", answers.EntriesAnswer),
                Answer(200, "with stat=true: what it is", answers.StatAnswer),
            ),
            parameters=(PATH, LIST, STAT), errors=(400, *GONE, 504), tag="files",
        ),
        Operation(
            "POST", FILES, of.write, "writeFile", "Upload a file (parents are made), or make a directory",
            answers=(Answer(201, "what was written", answers.FileAnswer),),
            body=BYTES, body_required=False, parameters=(PATH, MODE, DIRECTORY),
            errors=(400, *GONE, 413, 504), tag="files",
        ),
        Operation(
            "DELETE", FILES, of.remove, "removeFile", "Remove a file or directory",
            answers=(Answer(200, "what was removed", answers.RemovedAnswer),),
            parameters=(PATH, RECURSIVE), errors=(400, *GONE, 504), tag="files",
        ),
        Operation(
            "POST", FILES + "/move", of.move, "moveFile", "Move or rename",
            answers=(Answer(200, "what was moved", answers.MovedAnswer),),
            body=requests.MoveBody, errors=(400, *GONE, 413, 504), tag="files",
        ),
    ]  # fmt: skip
