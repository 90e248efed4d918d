"""`/workspace/{ws}/...`: the files of a workspace as it is now, one folder or one file at a time."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry, EntryKind, text
from atoll.services.objects.spool import Spool
from atoll.services.workspaces.on_demand import found_or_free, found_or_made
from atoll.services.workspaces.single_files import Contents, path_of
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.bodies import Stream, at_most, begun, json_response
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.moments import moment
from atoll.surfaces.multipart import UploadForm
from atoll.surfaces.operation import Parameter
from atoll.surfaces.testbase.errors import InvalidFields

UPLOAD_BYTES_MAX = 100 * 2**20
PATH_CHARS_MAX = 1024
NAME_BYTES_MAX = 255
OUTSIDE = "Invalid target path or path traversal attempt"
PATH = Parameter("path", "the folder; default: the workspace's root", raw=True, max_chars=PATH_CHARS_MAX)
LIMIT = Parameter("limit", "at most so many entries; default: 1,000", int, minimum=1, maximum=10_000)
AFTER = Parameter("after", "go on behind this path: `next` of the answer before", raw=True)
_PLAIN_NAME = re.compile(r"[\w.\- ]+", re.ASCII)


class WorkspaceFileAnswer(AnswerModel):
    name: str
    type: Literal["file", "directory"]
    size: int
    modified: datetime


class WorkspaceFilesAnswer(AnswerModel):
    workspaceId: str
    path: str
    files: list[WorkspaceFileAnswer]
    next: str | None = None


class UploadedAnswer(AnswerModel):
    success: Literal[True]
    workspaceId: str
    filename: str
    path: str
    size: int


class FileDeletedAnswer(AnswerModel):
    success: Literal[True]
    workspaceId: str
    filePath: str


class FileHandlers:
    """One method for each operation."""

    def __init__(self, workspaces: Workspaces, settings: Settings) -> None:
        self._workspaces = workspaces
        self._files = workspaces.files
        self._uploads = settings.folder.uploads
        self._upload_bytes = min(UPLOAD_BYTES_MAX, settings.limits.maxima.disk_bytes)

    async def list(self, request: Request, principal: Principal) -> Response:
        workspace, path = request.path_params["ws"], PATH.text(request) or "."
        limit, after = LIMIT.number(request) or 1_000, AFTER.text(request)
        found = await self._files.list(principal, workspace, path, limit=limit, after=after)
        more = {} if found.next is None else {"next": found.next}
        files = [_shown(entry) for entry in found.entries]
        return json_response({"workspaceId": workspace, "path": path, "files": files} | more)

    async def upload(self, request: Request, principal: Principal) -> Response:
        workspace = request.path_params["ws"]
        there = await found_or_free(self._workspaces, principal, workspace)
        form = UploadForm(request, "file", self._upload_bytes)
        if there is not None:
            contents = await self._files.store(principal, workspace, form.pieces())
            path, name = _target(form)
        else:  # it is made once the form is known to be a whole one
            async with Spool(self._uploads, self._workspaces.check_disks) as spool:
                await spool.take(form.pieces())
                path, name = _target(form)
                await found_or_made(self._workspaces, principal, workspace)
                contents = await self._files.store(principal, workspace, spool.pieces())
        await self._files.put(principal, workspace, path, contents)
        return json_response(_uploaded(workspace, name, path, contents))

    async def download(self, request: Request, principal: Principal) -> Response:
        path = _path_behind(request)
        entry, pieces = await self._files.read(principal, request.path_params["ws"], path)
        headers = {"content-disposition": _attachment(path), "x-content-type-options": "nosniff"}
        return Stream(await begun(at_most(pieces, entry.size)), headers=headers, size=entry.size)

    async def remove(self, request: Request, principal: Principal) -> Response:
        workspace, path = request.path_params["ws"], _path_behind(request)
        await self._files.remove(principal, workspace, path)
        return json_response({"success": True, "workspaceId": workspace, "filePath": path})


def _target(form: UploadForm) -> tuple[str, str]:
    """Where the file of a form is to lie, and its name. InvalidInput in the protocol's words."""
    folder, name = form.fields.get("path"), form.filename
    if name is None:
        raise InvalidFields([{"field": "file", "message": "No file uploaded"}])
    if not folder:
        raise InvalidFields([{"field": "path", "message": "Target path is required"}])
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode()) > NAME_BYTES_MAX:
        raise InvalidFields([{"field": "file", "message": "Invalid file name"}])
    try:
        if len(folder) > PATH_CHARS_MAX or folder.startswith("/"):
            raise InvalidInput
        path = path_of(f"{folder}/{name}")
    except InvalidInput:
        shown = folder[:PATH_CHARS_MAX]
        raise InvalidFields([{"field": "path", "message": OUTSIDE, "value": shown}]) from None
    return text(path), name


def _path_behind(request: Request) -> str:
    """What stands in the path behind `download/` or `files/`: names are bytes, which the decoded path has lost."""
    raw: bytes = request.scope["raw_path"]
    path = text(unquote_to_bytes(raw.split(b"/", 4)[4]))
    if not path or len(path) > PATH_CHARS_MAX:
        raise InvalidInput(f"path must have 1 to {PATH_CHARS_MAX} characters", field="path")
    return path


def _attachment(path: str) -> str:
    """RFC 6266: a name that every client reads, and the true one where that is another."""
    name = path.rstrip("/").rpartition("/")[2]
    if _PLAIN_NAME.fullmatch(name):
        return f'attachment; filename="{name}"'
    encoded = quote(name.encode("utf-8", "surrogateescape"), safe="")
    return f"attachment; filename=\"download\"; filename*=UTF-8''{encoded}"


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        "name": text(entry.path.rpartition(b"/")[2]),
        "type": "directory" if entry.kind is EntryKind.DIRECTORY else "file",
        "size": entry.size,
        "modified": moment(entry.mtime_ns // 10**9),
    }


def _uploaded(workspace: str, name: str, path: str, contents: Contents) -> dict[str, Any]:
    return {"success": True, "workspaceId": workspace, "filename": name, "path": path, "size": contents.size}
