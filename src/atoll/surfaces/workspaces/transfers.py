"""The handlers of bytes in bulk: sync's chunks and entries, and whole trees as archives; nothing is held as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import QuotaExceeded, TooLarge
from atoll.domain.principal import Principal
from atoll.domain.tree import ID_BYTES
from atoll.services.workspaces.storage.allowance import StorageFull
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.bodies import Stream, begun, json_response, read_body, upload
from atoll.surfaces.operation import BYTES
from atoll.surfaces.workspaces import answers, entries
from atoll.surfaces.workspaces.entries import read_entries, write_entries
from atoll.surfaces.workspaces.frames import IDS_MAX, read_frames, read_ids, write_frames
from atoll.surfaces.workspaces.requests import BASE, MESSAGE, REVISION, SINCE, STRIP

IDS_BYTES_MAX = IDS_MAX * ID_BYTES
ARCHIVE_MEDIA = "application/zstd"


class TransferHandlers:
    """One method for each operation."""

    def __init__(self, workspaces: Workspaces, settings: Settings) -> None:
        self._workspaces = workspaces
        self._sync = workspaces.sync
        # Nothing can be larger than the largest disk; what a workspace's own quota allows is for the service to say.
        self._upload_bytes = settings.limits.maxima.disk_bytes

    async def head(self, request: Request, principal: Principal) -> Response:
        view = await self._sync.head(principal, request.path_params["ws"])
        return json_response({"revision": answers.revision(view, principal.id)})

    async def entries(self, request: Request, principal: Principal) -> Response:
        changes = await self._sync.entries(
            principal,
            request.path_params["ws"],
            REVISION.text(request) or "HEAD",
            since=SINCE.text(request),
        )
        return await _stream(write_entries(changes), entries.MEDIA)

    async def missing(self, request: Request, principal: Principal) -> Response:
        ids = read_ids(await read_body(request, IDS_BYTES_MAX))
        missing = await self._sync.missing(principal, request.path_params["ws"], ids)
        return Response(b"".join(missing), media_type=BYTES)

    async def chunks(self, request: Request, principal: Principal) -> Response:
        frames = read_frames(upload(request, self._upload_bytes))
        stored, size = await self._sync.chunks(principal, request.path_params["ws"], frames)
        return json_response({"stored": stored, "bytes": size})

    async def fetch(self, request: Request, principal: Principal) -> Response:
        ids = read_ids(await read_body(request, IDS_BYTES_MAX))
        chunks = await self._sync.fetch(principal, request.path_params["ws"], ids)
        return await _stream(write_frames(chunks), BYTES)

    async def commit(self, request: Request, principal: Principal) -> Response:
        base, message = BASE.text(request) or "", MESSAGE.text(request)
        with _too_large():
            view = await self._sync.commit(
                principal,
                request.path_params["ws"],
                base,
                read_entries(upload(request, entries.BODY_BYTES_MAX)),
                message,
            )
        return json_response(answers.revision(view, principal.id), 201)

    async def export(self, request: Request, principal: Principal) -> Response:
        revision = REVISION.text(request) or "HEAD"
        pieces = await self._workspaces.archives.export(principal, request.path_params["ws"], revision)
        return await _stream(pieces, ARCHIVE_MEDIA)

    async def import_archive(self, request: Request, principal: Principal) -> Response:
        strip, message = STRIP.number(request) or 0, MESSAGE.text(request)
        with _too_large():
            view = await self._workspaces.archives.import_archive(
                principal,
                request.path_params["ws"],
                upload(request, self._upload_bytes),
                strip=strip,
                message=message,
            )
        return json_response(answers.revision(view, principal.id), 201)


@contextmanager
def _too_large() -> Generator[None]:
    """What does not fit in the workspace is a body too large for it; what its owner may not store is not."""
    try:
        yield
    except StorageFull:
        raise
    except QuotaExceeded as error:
        raise TooLarge(error.message) from None


async def _stream(pieces: AsyncIterator[bytes], media: str) -> Response:
    headers = {"x-content-type-options": "nosniff"}
    return Stream(await begun(pieces), headers=headers, media_type=media)
