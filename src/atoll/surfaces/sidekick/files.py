"""The handlers of files, whose contents travel inside of JSON; no path is resolved on this side."""

from __future__ import annotations

import base64
import binascii
import posixpath
import time
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput, NotFound, TooLarge
from atoll.domain.principal import Principal
from atoll.domain.process import FileEntry
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.bodies import at_most, begun, close_iterator, json_response, read_model
from atoll.surfaces.models import BodyModel
from atoll.surfaces.operation import Parameter
from atoll.surfaces.sidekick import answers
from atoll.surfaces.sidekick.errors import done, enveloped
from atoll.surfaces.sidekick.large import LARGE_BYTES, LARGE_ITEMS, LargeAnswers
from atoll.surfaces.sidekick.paths import meant, path_in

PATH = Parameter("path", "the directory; default: /")
CONTENT = Parameter("content", "with what is in it, as text; base64 where it is none", bool)
CONTENT_BYTES_MAX = 10 * 2**20  # of a file that is read as JSON; as much as a body brings, unless settings say else

Path = Annotated[str, Field(min_length=1, description="a relative one starts at the sandbox's work directory")]
Encoding = Literal["utf-8", "base64"]


class FileBody(BodyModel):
    """POST /files."""

    path: Path
    content: str | None = None
    encoding: Encoding | None = Field(None, description="of the content; default: utf-8")


class ContentBody(BodyModel):
    """PUT /files/{path}."""

    content: str
    encoding: Encoding | None = None


class FileHandlers:
    """One method for each operation."""

    def __init__(self, sandboxes: Sandboxes, large: LargeAnswers, settings: Settings) -> None:
        self._files = sandboxes.files
        self._large = large
        self._body_bytes = settings.server.body_bytes

    async def list(self, request: Request, principal: Principal) -> Response:
        path = PATH.text(request) or "/"
        entries = await self._files.list(principal, request.path_params["id"], path)
        files = (answers.file(posixpath.join(path, entry.name), entry) for entry in entries)
        if len(entries) <= LARGE_ITEMS:
            return done("Files", {"files": list(files), "path": path})

        async def told() -> answers.Json:
            return enveloped("Files", {"files": files, "path": path})

        return await self._large.answer(principal.id, told)

    async def write(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, FileBody, self._body_bytes)
        data = decoded(body.content or "", body.encoding)
        size = await self._files.write(principal, request.path_params["id"], body.path, whole(data))
        return done("File written", {"file": written(body.path, size)}, 201)

    async def read(self, request: Request, principal: Principal) -> Response:
        sandbox_id = request.path_params["id"]
        path, entry = await meant(self._files, principal, sandbox_id, path_in(request))
        if entry is None:
            raise NotFound(f"path {path!r}: no such file or directory")
        if not CONTENT.flag(request):
            return done("File", {"file": answers.file(path, entry)})
        entry, pieces = await self._files.read(principal, sandbox_id, path)
        pieces = await begun(pieces)  # one that was never begun would not close what it reads

        async def told() -> answers.Json:
            content, encoding = _text(b"".join([piece async for piece in at_most(pieces, entry.size)]))
            data = {"file": answers.file(path, entry), "content": content, "encoding": encoding}
            return enveloped("File", data, content=content)

        try:
            if entry.size > CONTENT_BYTES_MAX:
                raise TooLarge(
                    f"path {path!r}: larger than the {CONTENT_BYTES_MAX} bytes that JSON may hold; "
                    f"GET /v1/sessions/{sandbox_id}/files?path= reads files of any size"
                )
            if entry.size > LARGE_BYTES:
                return await self._large.answer(principal.id, told)
            return json_response(await told())
        finally:
            await close_iterator(pieces)

    async def look(self, request: Request, principal: Principal) -> Response:
        path, entry = await meant(self._files, principal, request.path_params["id"], path_in(request))
        if entry is None:
            raise NotFound(f"path {path!r}: no such file or directory")
        return Response(status_code=200, media_type="application/json")

    async def replace(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, ContentBody, self._body_bytes)
        path = await self._named(request, principal)
        data = decoded(body.content, body.encoding)
        size = await self._files.write(principal, request.path_params["id"], path, whole(data))
        return done("File written", {"file": written(path, size)})

    async def remove(self, request: Request, principal: Principal) -> Response:
        path = await self._named(request, principal)
        await self._files.remove(principal, request.path_params["id"], path, recursive=True)
        return Response(status_code=204)

    async def _named(self, request: Request, principal: Principal) -> str:
        """What is to be changed: whoever may only write does not learn what is there."""
        path = path_in(request)
        if path.startswith("/"):
            return path
        return (await meant(self._files, principal, request.path_params["id"], path))[0]


def decoded(content: str, encoding: Encoding | None) -> bytes:
    """The bytes that a content stands for; InvalidInput (`content`)."""
    try:
        return base64.b64decode(content, validate=True) if encoding == "base64" else content.encode()
    except (binascii.Error, ValueError):
        raise InvalidInput(f"content is not {encoding or 'utf-8'}", field="content") from None


def written(path: str, size: int) -> answers.Json:
    """A file that stands there now, without another look: who may write may not look."""
    return answers.file(path, FileEntry(posixpath.basename(path.rstrip("/")), "file", size, 0, time.time()))


async def whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _text(data: bytes) -> tuple[str, Encoding]:
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"
