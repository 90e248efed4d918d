"""The handler that tells what changes below a folder of a session, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import AtollError
from atoll.domain.file_change import FileChange
from atoll.domain.principal import Principal
from atoll.services.file_watching import PATTERN_CHARACTERS_MAX, PATTERNS_MAX
from atoll.services.sandboxes import Sandboxes
from atoll.surfaces.bodies import Stream, begun, close_iterator
from atoll.surfaces.operation import Answer, Operation, Parameter

MEDIA = "text/event-stream"
PATH = Parameter("path", "a directory with all below it, or a file; default: the session's workDir")
IGNORED = Parameter(
    "ignored",
    "what is not told, as in .gitignore: a name, or a path with *, ?, [a-z] and **",
    repeatable=True,
    max_chars=PATTERN_CHARACTERS_MAX,
    max_items=PATTERNS_MAX,
)
TEXT = """The first message, `watching {path}`, comes once the watch is in place; then `change {event, path}`: add,
change and unlink of files, addDir and unlinkDir of directories, and overflow when some were lost: look again then.
Changes of one path within a moment are one. A comment comes every 15 s. `end {message}` says why it ended, when the
session does."""


class WatchHandler:
    """One method."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._watches = sandboxes.watches

    async def follow(self, request: Request, principal: Principal) -> Response:
        sandbox_id, path = request.path_params["id"], PATH.text(request) or "."
        changes = self._watches.stream(principal, sandbox_id, path, ignored=IGNORED.texts(request))
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return Stream(await begun(_frames(changes)), headers=headers, media_type=MEDIA)


async def _frames(changes: AsyncIterator[str | list[FileChange] | None]) -> AsyncIterator[bytes]:
    """The first one may raise: there is no answer yet then."""
    first = True
    try:
        async for piece in changes:
            first = False
            if piece is None:
                yield b": still there\n\n"
            elif isinstance(piece, str):
                yield b"event: watching\ndata: %s\n\n" % to_json({"path": piece})
            else:
                told = (to_json({"event": one.kind, "path": one.path}) for one in piece)
                yield b"".join(b"event: change\ndata: %s\n\n" % one for one in told)
    except AtollError as error:
        if first:
            raise
        yield b"event: end\ndata: %s\n\n" % to_json({"message": error.message})
    finally:
        await close_iterator(changes)


def watch_operation(sandboxes: Sandboxes, path: str) -> Operation:
    return Operation(
        "GET", path, WatchHandler(sandboxes).follow, "watchFiles", "Follow what changes below a directory",
        answers=(Answer(200, "server-sent events", None, MEDIA),), parameters=(PATH, IGNORED),
        errors=(400, 404, 409, 413, 503, 504), tag="files", description=TEXT,
    )  # fmt: skip
