"""The API's document as JSON and YAML, and two pages that show it; all they need comes from this server.

The assets are those that the package fastapi-offline carries; a content policy keeps the pages from asking elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from atoll.domain.errors import NotFound
from atoll.surfaces.openapi import yaml

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
    "favicon.png": "image/png",
}
START = "start.js"
_START_JS = """window.ui = SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true});"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self' data:; worker-src blob:; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Atoll API</title><link rel="icon" href="docs/assets/favicon.png">%s</head>
<body style="margin:0">%s</body></html>
"""
_SWAGGER = _PAGE % (
    '<link rel="stylesheet" href="docs/assets/swagger-ui.css">',
    '<div id="swagger-ui"></div><script src="docs/assets/swagger-ui-bundle.js"></script>'
    f'<script src="docs/assets/{START}"></script>',
)
_REDOC = _PAGE % (
    "",
    '<redoc spec-url="openapi.json"></redoc><script src="docs/assets/redoc.standalone.js"></script>',
)


class Pages:
    """`document` is called once, on first use: by then every route is known."""

    def __init__(self, document: Callable[[], dict[str, Any]]) -> None:
        self._build = document

    async def json(self, _request: Request) -> Response:
        return Response(self._json, media_type="application/json")

    async def yaml(self, _request: Request) -> Response:
        return Response(self._yaml, media_type="application/yaml")

    async def swagger(self, _request: Request) -> Response:
        return HTMLResponse(_SWAGGER, headers=_HEADERS)

    async def redoc(self, _request: Request) -> Response:
        return HTMLResponse(_REDOC, headers=_HEADERS)

    async def asset(self, request: Request) -> Response:
        name = request.path_params["file"]
        if name == START:
            return Response(_START_JS, media_type="text/javascript", headers=_HEADERS)
        kind = ASSETS.get(name)
        folder = _asset_folder()
        if kind is None or folder is None:
            raise NotFound("no such asset")
        headers = _HEADERS | {"cache-control": "public, max-age=86400"}
        return FileResponse(folder / name, media_type=kind, headers=headers)

    @cached_property
    def _document(self) -> dict[str, Any]:
        return self._build()

    @cached_property
    def _json(self) -> bytes:
        return to_json(self._document)

    @cached_property
    def _yaml(self) -> str:
        return yaml(self._document)


def _asset_folder() -> Path | None:
    # Found without importing: the package's own code is not wanted.
    spec = find_spec("fastapi_offline")
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) / "static" if folders else None
