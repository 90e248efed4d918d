"""Paths of files in addresses: clients write `/files//tmp/x`, `/files/%2Ftmp%2Fx` and `/files/tmp/x` for one file.

The handlers of files read them here; what a path leads to is for the sandbox to say.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from atoll.domain.errors import InvalidInput, NotFound
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.process import FileEntry
from atoll.services.files import Files

_BEFORE = re.compile(rb"/sb/[^/]+/files/", re.IGNORECASE)


def path_in(request: Request) -> str:
    """The path as it was meant: decoded once, as UTF-8; with a slash in front it is absolute, any number means one."""
    raw: bytes = request.scope.get("raw_path") or b""
    found = _BEFORE.match(raw)
    if found is None:  # a host that stands for a sandbox: whoever took the request there wrote the path anew
        path: str = request.path_params["path"]
    else:
        try:
            path = unquote_to_bytes(raw[found.end() :]).decode()
        except UnicodeDecodeError:
            raise InvalidInput("path must be percent-encoded UTF-8", field="path") from None
    return "/" + path.lstrip("/") if path.startswith("/") or not path else path


async def meant(files: Files, principal: Principal, sandbox_id: str, path: str) -> tuple[str, FileEntry | None]:
    """Which of two a path without a slash in front is: from the root, as old clients strip the slash, or else from the
    work directory; and what is there. Where neither is anything, it is from the root if its first folder is there.

    Needs `read`. Errors as from `Files.stat`, but no NotFound of the file.
    """
    if path.startswith("/"):
        return path, await _entry(files, principal, sandbox_id, path)
    rooted = "/" + path
    for one in (rooted, path):
        entry = await _entry(files, principal, sandbox_id, one)
        if entry is not None:
            return one, entry
    folder, slash, _ = path.partition("/")
    if slash and await _entry(files, principal, sandbox_id, "/" + folder) is not None:
        return rooted, None
    return path, None


async def _entry(files: Files, principal: Principal, sandbox_id: str, path: str) -> FileEntry | None:
    try:
        return await files.stat(principal, sandbox_id, path)
    except NotFound:
        await files.check(principal, sandbox_id, Scope.READ)  # the sandbox itself is there
        return None
