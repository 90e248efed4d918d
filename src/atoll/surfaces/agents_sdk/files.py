"""Files of a sandbox by their path in the URL, and its /workspace as a whole: persist packs it, hydrate unpacks it.

A path is what follows `/file/`, absolute in the sandbox; `..` and symlinks are resolved there and cannot leave it.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.workspace import MOUNT_POINT
from atoll.services.archives import Archives
from atoll.services.lasting_sandboxes import LastingSandboxes
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.bodies import Stream, at_most, begun, json_response, upload
from atoll.surfaces.operation import Parameter

TAR = "application/x-tar"
EXCLUDES = Parameter("excludes", "paths below /workspace to leave out, separated by commas", max_chars=65_536)


class FileHandlers:
    """One method for each operation."""

    def __init__(self, sandboxes: Sandboxes, lasting: LastingSandboxes, settings: Settings) -> None:
        self._lasting = lasting
        self._files = sandboxes.files
        # No file can be larger than the largest disk; what the sandbox's own allows is for its file system to say.
        self._upload_bytes = settings.limits.maxima.disk_bytes
        self._archives = Archives(sandboxes.processes, sandboxes.files, self._upload_bytes)

    async def read(self, request: Request, principal: Principal) -> Response:
        entry, pieces = await self._files.read(principal, await self._meant(request, principal), _path(request))
        headers = {"x-content-type-options": "nosniff"}
        return Stream(await begun(at_most(pieces, entry.size)), headers=headers, size=entry.size)

    async def write(self, request: Request, principal: Principal) -> Response:
        chunks = upload(request, self._upload_bytes)
        await self._files.write(principal, await self._meant(request, principal), _path(request), chunks)
        return json_response({"ok": True})

    async def persist(self, request: Request, principal: Principal) -> Response:
        excludes = [path for path in (EXCLUDES.text(request) or "").split(",") if path]
        pieces = await self._archives.pack(principal, await self._meant(request, principal), MOUNT_POINT, excludes)
        return Stream(await begun(pieces), media_type=TAR)

    async def hydrate(self, request: Request, principal: Principal) -> Response:
        chunks = upload(request, self._upload_bytes)
        await self._archives.unpack(principal, await self._meant(request, principal), MOUNT_POINT, chunks)
        return json_response({"ok": True})

    async def _meant(self, request: Request, principal: Principal) -> str:
        """The id of the sandbox that the path means now. Who may not look is told by what it does next."""
        sandbox_id: str = request.path_params["id"]
        if Scope.READ not in principal.scopes:
            return sandbox_id
        return (await self._lasting.newest(principal, sandbox_id)).id


def _path(request: Request) -> str:
    """Names are bytes, which the decoded path has lost."""
    raw: bytes = request.scope["raw_path"]
    return "/" + unquote_to_bytes(raw.split(b"/", 5)[5]).decode("utf-8", "surrogateescape")
