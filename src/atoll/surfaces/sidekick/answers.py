"""What the sidekick API answers with: the models that its document shows, and how values of Atoll become them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from atoll.domain.process import FileEntry, RunResult
from atoll.services.daemon.commands import Command, Output, channel_of
from atoll.services.daemon.terminals import DaemonTerminal
from atoll.services.daemon.terminals import channel_of as channel_of_terminal
from atoll.surfaces import moments
from atoll.surfaces.models import AnswerModel

Json = dict[str, Any]
Status = Literal["pending", "running", "completed", "failed"]


class Ran(AnswerModel):
    """A command: `exit_code` and what it wrote come with its end."""

    terminal_id: str
    cmd_id: str
    command: str
    stdout: str
    stderr: str
    output: str | None = Field(None, description="of /execute: both, the errors last")
    exit_code: int | None = None
    duration_ms: int | None = None
    status: Status
    channel: str
    pty: bool
    truncated: bool | None = None


class RanAnswer(AnswerModel):
    message: str
    data: Ran


class Code(AnswerModel):
    output: str
    exit_code: int
    language: str
    truncated: bool


class CodeAnswer(AnswerModel):
    message: str
    data: Code


class CommandItem(AnswerModel):
    cmd_id: str
    command: str
    status: Status
    started_at: datetime
    finished_at: datetime | None = None
    duration_ms: int | None = None
    exit_code: int | None = None


class CommandDetails(CommandItem):
    terminal_id: str
    stdout: str
    stderr: str
    truncated: bool


class CommandAnswer(AnswerModel):
    message: str
    data: CommandDetails


class CommandList(AnswerModel):
    commands: list[CommandItem]
    count: int


class CommandsAnswer(AnswerModel):
    message: str
    data: CommandList


class File(AnswerModel):
    name: str
    path: str
    size: int
    is_dir: bool
    modified_at: datetime


class FileData(AnswerModel):
    file: File
    content: str | None = None
    encoding: Literal["utf-8", "base64"] | None = None


class FileAnswer(AnswerModel):
    """With `content=true` the content stands at the top level too."""

    message: str
    data: FileData
    content: str | None = None


class FileList(AnswerModel):
    files: list[File]
    path: str


class FilesAnswer(AnswerModel):
    message: str
    data: FileList


class BatchResult(AnswerModel):
    path: str
    success: bool
    error: str | None = None
    file: File | None = None


class BatchResults(AnswerModel):
    results: list[BatchResult]


class BatchAnswer(AnswerModel):
    message: str
    data: BatchResults


class Terminal(AnswerModel):
    """`channel` and `ws_url` only of one on a PTY."""

    id: str
    pty: bool
    status: Literal["running", "stopped", "ready", "active"]
    channel: str | None = None
    ws_url: str | None = None
    encoding: Literal["raw", "base64"] | None = None


class TerminalAnswer(AnswerModel):
    message: str
    data: Terminal


class TerminalList(AnswerModel):
    terminals: list[Terminal]


class TerminalsAnswer(AnswerModel):
    message: str
    data: TerminalList


def ran(command_id: str, terminal: str, line: str, result: RunResult) -> Json:
    """One that was waited for."""
    return {
        "terminal_id": terminal,
        "cmd_id": command_id,
        "command": line,
        "stdout": text(result.stdout),
        "stderr": text(result.stderr),
        "exit_code": result.exit.code,
        "duration_ms": round(result.exit.duration_s * 1000),
        "status": "completed" if result.exit.code == 0 else "failed",
        "channel": channel_of(command_id),
        "pty": False,
        "truncated": result.truncated,
    }


def begun(command_id: str, terminal: str, line: str, status: Status) -> Json:
    """One that goes on by itself, or waits for its start."""
    return {
        "terminal_id": terminal,
        "cmd_id": command_id,
        "command": line,
        "stdout": "",
        "stderr": "",
        "status": status,
        "channel": channel_of(command_id),
        "pty": False,
    }


def command_item(command: Command) -> Json:
    info = command.process
    item: Json = {
        "cmd_id": command.id,
        "command": command.line,
        "status": "running",
        "started_at": moment(info.started_at),
    }
    if info.exit is not None:
        item |= {
            "status": "completed" if info.exit.code == 0 else "failed",
            "finished_at": moment(info.started_at + info.exit.duration_s),
            "duration_ms": round(info.exit.duration_s * 1000),
            "exit_code": info.exit.code,
        }
    return item


def command_details(command: Command, output: Output) -> Json:
    return command_item(command) | {
        "terminal_id": command.terminal,
        "stdout": text(output.stdout),
        "stderr": text(output.stderr),
        "truncated": output.truncated,
    }


def file(path: str, entry: FileEntry) -> Json:
    return {
        "name": entry.name,
        "path": path,
        "size": entry.size,
        "is_dir": entry.kind == "directory",
        "modified_at": moment(entry.modified_at),
    }


def terminal(one: DaemonTerminal, ws_url: str) -> Json:
    if not one.pty:
        return {"id": one.id, "pty": False, "status": one.status}
    return {
        "id": one.id,
        "pty": True,
        "status": one.status,
        "channel": channel_of_terminal(one.id),
        "ws_url": ws_url,
        "encoding": one.encoding,
    }


def moment(unix_s: float) -> str:
    """As the clients of this API read it."""
    return moments.moment(unix_s).isoformat().replace("+00:00", "Z")


def text(data: bytes) -> str:
    return data.decode(errors="replace")
