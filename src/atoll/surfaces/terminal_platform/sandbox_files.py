"""The Sandbox API's files: text, at paths that begin at the sandbox's workspace and do not leave it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import unquote_to_bytes

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput, NotFound, TooLarge
from atoll.domain.principal import Principal
from atoll.domain.workspace import MOUNT_POINT
from atoll.services.home_sandboxes import HomeSandboxes
from atoll.services.paths import check_path
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import Parameter
from atoll.surfaces.terminal_platform.errors import NO_SESSION, BadRequest

FOLDER = Parameter("path", "a folder of the workspace; default: the whole of it")
SLASHES_BEFORE = 4  # of /sandboxes/{id}/files/PATH


class SandboxFileBody(AnswerModel):
    """POST /sandboxes/{id}/files."""

    path: Annotated[str, Field(min_length=1)]
    data: str = Field(description="the file's whole text")


class SandboxEntriesAnswer(AnswerModel):
    entries: list[str]


class SandboxFileAnswer(AnswerModel):
    content: str


class SandboxFileHandlers:
    """One method for each operation."""

    def __init__(self, homes: HomeSandboxes, sandboxes: Sandboxes, settings: Settings) -> None:
        self._homes = homes
        self._files = sandboxes.files
        self._body_bytes = settings.server.body_bytes
        self._read_bytes = settings.limits.run_output_bytes

    async def write(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SandboxFileBody, self._body_bytes)
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        await self._files.write(principal, sandbox_id, inside(body.path), _whole(body.data.encode()))
        return json_response({"success": True})

    async def list(self, request: Request, principal: Principal) -> Response:
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        path = inside(FOLDER.text(request) or "/")
        try:
            found = await self._files.list(principal, sandbox_id, path)
        except NotFound as error:
            if error.message == NO_SESSION:
                raise
            found = []
        below = path.removeprefix(MOUNT_POINT).lstrip("/")
        return json_response({"entries": [f"{below}/{one.name}" if below else one.name for one in found]})

    async def read(self, request: Request, principal: Principal) -> Response:
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        path = inside(_path_behind(request))
        try:
            entry, pieces = await self._files.read(principal, sandbox_id, path)
        except NotFound as error:
            raise error if error.message == NO_SESSION else NotFound("file not found") from None
        content = bytearray()
        async for piece in pieces:
            content += piece
            if len(content) > self._read_bytes:
                await _close(pieces)
                raise TooLarge(f"the file is larger than {self._read_bytes} bytes")
        return json_response({"content": bytes(content[: entry.size]).decode(errors="ignore")})


def inside(path: str) -> str:
    """Where a path of this API lies in the sandbox. BadRequest for one that would leave the workspace.

    A leading / is the workspace's own. Links are the sandbox's: its sidekick follows them, and they end inside it.
    """
    parts: list[str] = []
    for part in check_path(path).split("/"):
        if part == "..":
            if not parts:
                raise BadRequest("directory traversal prevented")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join((MOUNT_POINT, *parts))


def _path_behind(request: Request) -> str:
    """What stands in the path behind `files/`, decoded once."""
    raw: bytes = request.scope["raw_path"]
    try:
        return unquote_to_bytes(raw.split(b"/", SLASHES_BEFORE)[SLASHES_BEFORE]).decode()
    except UnicodeDecodeError:
        raise InvalidInput("path must be valid UTF-8", field="path") from None


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _close(pieces: AsyncIterator[bytes]) -> None:
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()
