"""The handlers of files: bytes go through in pieces, whatever their size, and no path is resolved on this side."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput
from atoll.domain.principal import Principal
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.bodies import Stream, at_most, json_response, read_model, upload
from atoll.surfaces.execbox import answers
from atoll.surfaces.execbox.requests import MoveBody
from atoll.surfaces.operation import Parameter

PATH = Parameter("path", "where; a relative one starts at the session's workDir", required=True)
MODE = Parameter("mode", "permission bits in octal, such as 755", max_chars=6)
DIRECTORY = Parameter("directory", "make a directory, with its parents, instead of a file", bool)
LIST = Parameter("list", "the entries of a directory", bool)
STAT = Parameter("stat", "what it is instead of what is in it", bool)
RECURSIVE = Parameter("recursive", "a directory with all that is in it", bool)


class FileHandlers:
    """One method for each operation."""

    def __init__(self, sandboxes: Sandboxes, settings: Settings) -> None:
        self._files = sandboxes.files
        self._body_bytes = settings.server.body_bytes
        # No file can be larger than the largest disk; what the sandbox's own allows is for its file system to say.
        self._upload_bytes = settings.limits.maxima.disk_bytes

    async def write(self, request: Request, principal: Principal) -> Response:
        sandbox_id, path = request.path_params["id"], PATH.text(request) or ""
        if DIRECTORY.flag(request):
            await self._files.make_dir(principal, sandbox_id, path)
            return json_response({"path": path, "size": 0}, 201)
        chunks = upload(request, self._upload_bytes)
        size = await self._files.write(principal, sandbox_id, path, chunks, mode=_mode(request))
        return json_response({"path": path, "size": size}, 201)

    async def read(self, request: Request, principal: Principal) -> Response:
        sandbox_id, path = request.path_params["id"], PATH.text(request) or ""
        if LIST.flag(request):
            entries = await self._files.list(principal, sandbox_id, path)
            return json_response({"path": path, "entries": [answers.entry(entry) for entry in entries]})
        if STAT.flag(request):
            found = await self._files.stat(principal, sandbox_id, path)
            return json_response({"path": path} | answers.entry(found))
        entry, pieces = await self._files.read(principal, sandbox_id, path)
        headers = {"x-content-type-options": "nosniff", "atoll-mode": f"{entry.mode:o}"}
        return Stream(at_most(pieces, entry.size), headers=headers, size=entry.size)

    async def remove(self, request: Request, principal: Principal) -> Response:
        path = PATH.text(request) or ""
        recursive = RECURSIVE.flag(request)
        await self._files.remove(principal, request.path_params["id"], path, recursive=recursive)
        return json_response({"path": path, "removed": True})

    async def move(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, MoveBody, self._body_bytes)
        await self._files.move(principal, request.path_params["id"], body.source, body.destination)
        return json_response({"from": body.source, "to": body.destination})


def _mode(request: Request) -> int | None:
    text = MODE.text(request)
    if text is None:
        return None
    digits = text.removeprefix("0o")
    if not digits or len(digits) > 4 or set(digits) - set("01234567"):
        raise InvalidInput("mode must be octal digits such as 755", field="mode")
    return int(digits, 8)
