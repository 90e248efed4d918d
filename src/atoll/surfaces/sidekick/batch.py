"""The handler that writes and deletes many files with one request: each by itself, in the order in which they stand."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import AtollError, Internal, Unavailable
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.bodies import read_model
from atoll.surfaces.models import BodyModel
from atoll.surfaces.sidekick import answers
from atoll.surfaces.sidekick.errors import done
from atoll.surfaces.sidekick.files import Encoding, Path, decoded, whole, written

ITEMS_MAX = 1_000
PARTLY = 207


class BatchItem(BodyModel):
    """One file."""

    path: Path
    operation: Literal["write", "delete"]
    content: str | None = None
    encoding: Encoding | None = None


class BatchBody(BodyModel):
    """POST /files/batch."""

    files: Annotated[list[BatchItem], Field(max_length=ITEMS_MAX)]


class BatchHandler:
    """Writes and deletes."""

    def __init__(self, sandboxes: Sandboxes, settings: Settings) -> None:
        self._files = sandboxes.files
        self._body_bytes = settings.server.body_bytes

    async def change(self, request: Request, principal: Principal) -> Response:
        """200 when all were done, 207 when some were not; a sandbox that cannot be written to is an error of all."""
        body = await read_model(request, BatchBody, self._body_bytes)
        sandbox_id = request.path_params["id"]
        await self._files.check(principal, sandbox_id, Scope.WRITE)
        results = [await self._change(principal, sandbox_id, item) for item in body.files]
        whole_done = all(result["success"] for result in results)
        return done("Files changed", {"results": results}, 200 if whole_done else PARTLY)

    async def _change(self, principal: Principal, sandbox_id: str, item: BatchItem) -> answers.Json:
        try:
            if item.operation == "delete":
                await self._files.remove(principal, sandbox_id, item.path, recursive=True)
                return {"path": item.path, "success": True}
            data = decoded(item.content or "", item.encoding)
            size = await self._files.write(principal, sandbox_id, item.path, whole(data))
        except (Internal, Unavailable):
            raise
        except AtollError as error:
            return {"path": item.path, "success": False, "error": error.message}
        return {"path": item.path, "success": True, "file": written(item.path, size)}
