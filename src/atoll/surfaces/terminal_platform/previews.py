"""The preview router: ports of sandboxes are registered and listed here, and reached below the same path.

What is below `/preview/{sandbox}/{port}/` is declared here and served by the door of previews.
"""

from __future__ import annotations

from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from atoll.domain.errors import InvalidInput
from atoll.domain.preview import REGISTERED_BY, Preview
from atoll.domain.principal import Principal
from atoll.services.previews.previews import LISTED_MAX, NoPreview, Previews, Said
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.door import Door
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import WEBSOCKET, Answer, Operation, Parameter
from atoll.surfaces.previews.door import PreviewDoor
from atoll.surfaces.previews.opening import QUERY
from atoll.surfaces.previews.places import ROUTE, by_path
from atoll.surfaces.routing import PathRoute
from atoll.surfaces.terminal_platform.errors import BadRequest, DetailError, TerminalDialect

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")  # in the document: others go through as well
TAG = "previews"
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # how clients spell the sandbox's own
AFTER = Parameter("after", "only previews behind this `<sandbox>:<port>`", max_chars=256)
LIMIT = Parameter(
    "limit", f"at most so many, by `<sandbox>:<port>`; default: {LISTED_MAX:,}", int, minimum=1, maximum=LISTED_MAX
)
LINK = ("Link", 'the address of the next page (RFC 8288, `rel="next"`), where there is one')
Port = Annotated[int, Field(ge=1, le=65_535)]
Name = Annotated[str, Field(min_length=1, max_length=128)]


class PreviewBody(AnswerModel):
    """POST /preview/register. Of one that is registered, what is absent stays."""

    sandbox_id: Name
    port: Port
    backend_url: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="http://127.0.0.1:<port>, the sandbox's own loopback; default: that"
    )
    metadata: dict[str, str] | None = None
    public: bool = Field(False, description="whether anybody may look")
    fallback_sandbox_id: Name | None = Field(
        None, description="the sandbox that takes over when this one fails; said, also null, it has not taken over yet"
    )
    health_path: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="what is asked for its health with GET; default: OPTIONS /"
    )


class PreviewTokenBody(AnswerModel):
    """POST /preview/token."""

    sandbox_id: Name
    port: Port
    expires_in: Annotated[float, Field(gt=0, le=30 * 86_400)] | None = Field(None, description="seconds")


class PreviewAnswer(AnswerModel):
    """A registered port."""

    sandbox_id: str
    port: int
    url: str = Field(description="where the port is inside the sandbox that answers now")
    use_fallback: bool
    metadata: dict[str, str]
    preview_url: str = Field(description="where it is reached from outside")
    public: bool
    fallback_sandbox_id: str | None
    healthy: bool | None = Field(description="what its last check said; null: none was made lately")


class PreviewTokenAnswer(AnswerModel):
    token: str
    expires_at: str
    url: str = Field(description="the preview with the token in its address, which becomes a cookie")


class PreviewRemovedAnswer(AnswerModel):
    removed: bool


class PreviewHandlers:
    """One method for each operation."""

    def __init__(self, previews: Previews, settings: Settings) -> None:
        self._previews = previews
        self._body_bytes = settings.server.body_bytes

    async def register(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, PreviewBody, self._body_bytes)
        _check_backend(body)
        if REGISTERED_BY in (body.metadata or {}):  # it would be taken away with a server that there may be one day
            raise InvalidInput(f"metadata.{REGISTERED_BY} is the server's own word", field="metadata")
        made = await self._previews.register(principal, body.sandbox_id, body.port, **_said(body))
        return json_response(self._shown(request, made))

    async def list(self, request: Request, principal: Principal) -> Response:
        limit = LIMIT.number(request) or LISTED_MAX
        found = await self._previews.list(principal, after=AFTER.text(request) or "", limit=limit + 1)
        answer = json_response({one.id: self._shown(request, one) for one in found[:limit]})
        if len(found) > limit:  # the seed's object of previews has no room to say so
            following = request.url.include_query_params(after=found[limit - 1].id, limit=limit)
            answer.headers["link"] = f'<{following.path}?{following.query}>; rel="next"'
        return answer

    async def token(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, PreviewTokenBody, self._body_bytes)
        preview, made = await self._previews.mint(principal, body.sandbox_id, body.port, lasts_s=body.expires_in)
        url = f"{self._previews.url(preview, base_of(request))}?{QUERY}={made.text}"
        answer = json_response({"token": made.text, "expires_at": made.expires_at.isoformat(), "url": url})
        answer.headers["cache-control"] = "no-store"
        return answer

    async def remove(self, request: Request, principal: Principal) -> Response:
        port: str = request.path_params["port"]
        number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
        await self._previews.remove(principal, request.path_params["sandbox"], number)
        return json_response({"removed": True})

    def _shown(self, request: Request, preview: Preview) -> dict[str, Any]:
        return {
            "sandbox_id": preview.sandbox_id,
            "port": preview.port,
            "url": f"http://127.0.0.1:{preview.port}",
            "use_fallback": preview.use_fallback,
            "metadata": dict(preview.metadata),
            "preview_url": self._previews.url(preview, base_of(request)),
            "public": preview.public,
            "fallback_sandbox_id": preview.fallback_sandbox_id,
            "healthy": self._previews.healthy(preview),
        }


class PreviewRoute(PathRoute):
    """Declares the previews themselves; the door of previews admits, and speaks for itself."""

    def __init__(self, door: Door, previews: PreviewDoor) -> None:
        super().__init__(ROUTE, carried_operations(), door, TerminalDialect())
        self._previews = previews

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = by_path(scope)
        if place is None:
            await super().handle(scope, receive, send)
        else:
            await self._previews.serve(scope, receive, send, place)


def operations(previews: Previews, settings: Settings) -> list[Operation]:
    """What is served of the registry."""
    of = PreviewHandlers(previews, settings)
    error = DetailError
    shown = Answer(200, "the preview", PreviewAnswer)
    return [
        Operation(
            "POST", "/preview/register", of.register, "registerPreview", "Let a port of a sandbox be reached",
            answers=(shown,), body=PreviewBody, errors=(400, 404, 409, 413, 422, 503), tag=TAG, error=error,
        ),
        Operation(
            "GET", "/preview/list", of.list, "listPreviews", "The registered ports of your sandboxes",
            answers=(Answer(200, "previews by <sandbox>:<port>", {"type": "object"}, headers=(LINK,)),),
            parameters=(AFTER, LIMIT), errors=(422, 503), tag=TAG, error=error,
        ),
        Operation(
            "POST", "/preview/token", of.token, "createPreviewToken", "A token that opens one preview until it expires",
            answers=(Answer(200, "the token", PreviewTokenAnswer),), body=PreviewTokenBody,
            errors=(400, 404, 413, 422, 503), tag=TAG, error=error,
        ),
        Operation(
            "DELETE", "/preview/register/{sandbox}/{port}", of.remove, "removePreview", "Nobody reaches it any more",
            answers=(Answer(200, "it is gone", PreviewRemovedAnswer),), errors=(404, 409, 503), tag=TAG, error=error,
        ),
    ]  # fmt: skip


def carried_operations() -> list[Operation]:
    """The previews, in the document."""
    answer = Answer(200, "whatever the program in the sandbox answers, with its status", None, "*/*")
    return [
        Operation(
            method, ROUTE, _elsewhere, f"preview{method.capitalize()}", "Reach a port of a sandbox",
            answers=(answer if method != WEBSOCKET else Answer(101, "the program's WebSocket"),),
            errors=(404, 413, 502, 503, 504), tag=TAG, error=DetailError,
            description="Any method goes through. A public preview needs no credential; others open with the owner's, "
            f"or with a preview token: `X-Preview-Token`, `?{QUERY}=` once, or the cookie that it becomes.",
        )
        for method in (*METHODS, WEBSOCKET)
    ]  # fmt: skip


def base_of(request: Request) -> str:
    """Where the client reached this server."""
    return f"{request.url.scheme}://{request.url.netloc}"


async def _elsewhere(_request: Request, _principal: Principal) -> Response:
    """A path that names no port."""
    raise NoPreview


def _said(body: PreviewBody) -> Said:
    """What it has, null too."""
    said = body.model_dump(include=set(Said.__annotations__), exclude_unset=True)
    if "metadata" in said:
        said["metadata"] = said["metadata"] or {}
    return cast(Said, said)


def _check_backend(body: PreviewBody) -> None:
    """It names the port of the sandbox, or nothing that a server of ours would ever connect to."""
    if body.backend_url is None:
        return
    try:
        parts = urlsplit(body.backend_url)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    plain = parts.scheme == "http" and not parts.username and not parts.password and not parts.query
    if not plain or parts.hostname not in LOOPBACK or port != body.port or parts.path not in ("", "/"):
        raise BadRequest(
            f"backend_url must be http://127.0.0.1:{body.port}: a port of the sandbox's own", field="backend_url"
        )
