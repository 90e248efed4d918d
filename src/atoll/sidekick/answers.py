"""Answers: what a sidekick says, looked at before it is believed: it runs where the tenant is. Used by its client.

Each function takes parsed JSON and returns a value of domain/process.py; Unavailable for anything else.
"""

from __future__ import annotations

import json
import math
import re
import socket
from typing import Any

from atoll.domain import errors
from atoll.domain.copied import CopiedEntry, CopyEnd
from atoll.domain.file_change import ChangeKind, FileChange
from atoll.domain.process import Exit, FileEntry, ProcessInfo

PROCESSES_MAX = 8192  # running ones, those that ended lately, and those that somebody still follows
ENTRIES_MAX = 100_000  # of one folder
PORTS_MAX = 256
_PATH_CHARACTERS_MAX = 8192
_SKIPPED_MAX = 100
_NAME_BYTES_MAX = 1024  # file systems of the host may have longer ones than ours
_LABEL_CHARACTERS_MAX = 256
_ARGV_CHARACTERS_MAX = 1024
_MESSAGE_CHARACTERS_MAX = 20_000  # a path of 4096 bytes, each written as \\xff, fits
_INTERNAL_CHARACTERS_MAX = 200
_FIELD_CHARACTERS_MAX = 64
_INTEGER_MAX = 2**63 - 1
_PROCESS_ID = re.compile(r"main|p[1-9][0-9]{0,17}")
_EVENTS = frozenset(ChangeKind)
_KINDS = ("file", "directory", "symlink", "other")

_ERRORS: dict[str, type[errors.AtollError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidInput,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.TooLarge,
        errors.Unsupported,
        errors.Unavailable,
        errors.Internal,
    )
}


def nonsense(what: str) -> errors.Unavailable:
    """Not our fault, so that it leaves no trace in the log: whoever asked is told."""
    return errors.Unavailable(f"the sandbox does not answer as it should: {what}")


def accepted(value: Any) -> tuple[str, str, int]:
    """The gate through which a stream came, and where it meant to go: an IPv4 address and a port, or nothing."""
    try:
        gate, address, port = value["gate"], value.get("address", ""), value.get("port", 0)
        if address:
            socket.inet_pton(socket.AF_INET, address)
    except (TypeError, LookupError, AttributeError, OSError, ValueError):
        raise nonsense("a stream from nowhere") from None
    if gate not in ("api", "model", "out", "dns") or type(port) is not int or not 0 <= port < 65_536:
        raise nonsense("a stream from nowhere")
    return gate, address, port


def parsed(payload: bytes | bytearray) -> Any:
    """JSON that the other side sent, which may be anything."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise nonsense("no JSON") from None


def error_of(value: Any) -> errors.AtollError:
    """The error that an ERROR frame tells, in words that may be shown and logged."""
    try:
        code, message, field = str(value["code"]), str(value["message"]), value.get("field")
    except (TypeError, LookupError, AttributeError):
        return nonsense("it tells of an error that is none")
    kind = _ERRORS.get(code, errors.Internal)
    message = _shown(message, _INTERNAL_CHARACTERS_MAX if kind is errors.Internal else _MESSAGE_CHARACTERS_MAX)
    if kind is not errors.InvalidInput:
        return kind(message)
    return errors.InvalidInput(message, field=_shown(field, _FIELD_CHARACTERS_MAX) if isinstance(field, str) else None)


def started(value: Any) -> tuple[str, int, int]:
    """(process id, pid, offset) of a process that one is attached to now."""
    return _process_id(value), _integer(value, "pid"), _integer(value, "offset")


def exit_of(value: Any) -> Exit:
    number = None if _of(value, "signal") is None else _integer(value, "signal", 64)
    flags = _flag(value, "timed_out"), _flag(value, "oom_killed")
    return Exit(_integer(value, "code", 255), number, *flags, _number(value, "duration_s"))


def processes_of(value: Any) -> list[ProcessInfo]:
    return [_process_info(item) for item in _list(value, "processes")]


def entries_of(value: Any) -> list[FileEntry]:
    return [entry_of(item) for item in _list(value, "entries")]


def entry_of(value: Any) -> FileEntry:
    name, kind = _text(value, "name"), _text(value, "kind")
    try:
        fits = 0 < len(name.encode()) <= _NAME_BYTES_MAX
    except UnicodeEncodeError:
        fits = False
    if not fits or kind not in _KINDS:
        raise nonsense("name or kind")
    size, mode = _integer(value, "size"), _integer(value, "mode", 0o7777)
    return FileEntry(name, kind, size, mode, _number(value, "modified_at"))


def watched(value: Any) -> tuple[str, str]:
    """(path, kind) of what is watched now."""
    path, kind = _path(_of(value, "path")), _text(value, "kind")
    if kind not in ("directory", "file"):
        raise nonsense("kind")
    return path, kind


def changes_of(value: Any) -> list[FileChange]:
    found: list[FileChange] = []
    for item in _list(value, "changes"):
        if not isinstance(item, list) or len(item) != 2 or item[0] not in _EVENTS:  # pyright: ignore[reportUnknownArgumentType]
            raise nonsense("a change")
        found.append(FileChange(ChangeKind(item[0]), _path(item[1])))
    return found


def copied(value: Any) -> list[CopiedEntry] | CopyEnd:
    if isinstance(value, dict) and "made" in value:
        return [_copied_entry(item) for item in _list(value, "made")]  # pyright: ignore[reportUnknownArgumentType]
    skipped = _list(value, "skipped")
    if len(skipped) > _SKIPPED_MAX:
        raise nonsense("skipped")
    return CopyEnd(_integer(value, "files"), _integer(value, "folders"), tuple(_relative(item) for item in skipped))


def _copied_entry(item: Any) -> CopiedEntry:
    try:
        kind, path, size, modified_ns = item
    except (TypeError, ValueError):
        raise nonsense("an entry") from None
    if kind not in ("d", "f", "l") or type(size) is not int or type(modified_ns) is not int:
        raise nonsense("an entry")
    return CopiedEntry(kind, _relative(path, raw=True), size, modified_ns)


def _relative(found: Any, *, raw: bool = False) -> str:
    if not isinstance(found, str) or found.startswith("/") or len(found) > _PATH_CHARACTERS_MAX or "\0" in found:
        raise nonsense("a path")
    return found if raw else found.encode(errors="replace").decode()


def ports_of(value: Any) -> list[int]:
    found = _list(value, "ports")
    if len(found) > PORTS_MAX or not all(type(port) is int and 0 < port < 65_536 for port in found):
        raise nonsense("ports")
    return found


def size_of(value: Any) -> int:
    return _integer(value, "size")


def fields_of(value: Any) -> dict[str, Any]:
    """An object of whatever."""
    if not isinstance(value, dict):
        raise nonsense("no object")
    return value  # type: ignore[return-value]


def _process_info(value: Any) -> ProcessInfo:
    argv = _list(value, "argv")
    if not all(isinstance(word, str) for word in argv) or sum(len(word) + 1 for word in argv) > _ARGV_CHARACTERS_MAX:
        raise nonsense("argv")
    return ProcessInfo(
        _process_id(value),
        tuple(word.encode(errors="replace").decode() for word in argv),
        _integer(value, "pid"),
        _flag(value, "tty"),
        _number(value, "started_at"),
        _integer(value, "output_start"),
        _integer(value, "output_end"),
        None if _of(value, "exit") is None else exit_of(value["exit"]),
        _label(value),
    )


def _label(value: Any) -> str:
    """Sidekicks of earlier versions tell none."""
    found = value.get("label", "")
    if not isinstance(found, str) or len(found) > _LABEL_CHARACTERS_MAX:
        raise nonsense("label")
    return found.encode(errors="replace").decode()


def _of(value: Any, name: str) -> Any:
    try:
        return value[name]
    except (TypeError, LookupError):
        raise nonsense(name) from None


def _integer(value: Any, name: str, most: int = _INTEGER_MAX) -> int:
    found = _of(value, name)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
        raise nonsense(name)
    return found


def _number(value: Any, name: str) -> float:
    """Seconds."""
    found = _of(value, name)
    if not isinstance(found, int | float) or not math.isfinite(found) or abs(found) > _INTEGER_MAX:
        raise nonsense(name)
    return found


def _flag(value: Any, name: str) -> bool:
    found = _of(value, name)
    if not isinstance(found, bool):
        raise nonsense(name)
    return found


def _text(value: Any, name: str) -> str:
    found = _of(value, name)
    if not isinstance(found, str):
        raise nonsense(name)
    return found


def _list(value: Any, name: str) -> list[Any]:
    found = _of(value, name)
    if not isinstance(found, list):
        raise nonsense(name)
    return found  # type: ignore[return-value]


def _path(found: Any) -> str:
    if not isinstance(found, str) or not found.startswith("/") or len(found) > _PATH_CHARACTERS_MAX:
        raise nonsense("a path")
    return found.encode(errors="replace").decode()


def _process_id(value: Any) -> str:
    """It goes into paths and headers."""
    found = _text(value, "id")
    if _PROCESS_ID.fullmatch(found) is None:
        raise nonsense("id")
    return found


def _shown(text: str, most: int) -> str:
    text = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
