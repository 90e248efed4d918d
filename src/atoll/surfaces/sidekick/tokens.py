"""Tokens of one sandbox, as the sidekick API serves them: session tokens to give away, and magic links for browsers.

Clients of ComputeSDK read them flat or below `data`, in camel case or with underscores: answers have all of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote

from pydantic import AliasChoices, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from atoll.domain.errors import Conflict, InvalidInput, Unauthenticated
from atoll.domain.ids import SANDBOX_ID, subdomain
from atoll.domain.principal import Principal
from atoll.domain.sandbox_token import SandboxToken, TokenKind
from atoll.services.sandbox_tokens import MAGIC_S, SESSION_S, NewToken, SandboxTokens
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.addresses import Addresses
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.gateway_bodies import GatewayBody
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import Answer, Operation, Parameter
from atoll.surfaces.sidekick.daemon import HTML, PAGE_HEADERS
from atoll.surfaces.sidekick.declared import COOKIE, DAEMON, TAG
from atoll.surfaces.sidekick.errors import SidekickError, done

SESSION_TOKENS = DAEMON + "/auth/session_tokens"
SESSION_TOKEN = SESSION_TOKENS + "/{token}"
PLAY = "/play/"
REDIRECT_CHARS_MAX = 1_024
ONCE = "auth/token"  # what the token that the old call gives is called
TOKEN = Parameter("token", "the magic link's", max_chars=256)
USED = "This link was used already, has expired, or never was one. Ask for another."
NO_STORE = {"cache-control": "no-store"}


class SessionTokenBody(GatewayBody):
    """POST /auth/session_tokens."""

    description: Annotated[str, Field(max_length=1_024)] | None = None
    expiresIn: Annotated[int, Field(ge=1, le=30 * 86_400)] | None = Field(
        None, validation_alias=AliasChoices("expiresIn", "expires_in"), description="seconds; default: seven days"
    )


class MagicLinkBody(GatewayBody):
    """POST /auth/magic-links."""

    redirectUrl: Annotated[str, Field(max_length=REDIRECT_CHARS_MAX)] | None = Field(
        None,
        validation_alias=AliasChoices("redirectUrl", "redirect_url"),
        description="a path of this daemon; default: /play/",
    )


class SessionToken(AnswerModel):
    """A session token; its text is told once, to who made it."""

    id: str
    token: str | None = None
    description: str | None
    createdAt: datetime
    created_at: datetime
    expiresAt: datetime
    expires_at: datetime
    expiresIn: int
    expires_in: int


class SessionTokenAnswer(SessionToken):
    """The same below `data`."""

    status: Literal["success"]
    message: str
    data: SessionToken


class SessionTokenList(AnswerModel):
    tokens: list[SessionToken]


class SessionTokensAnswer(AnswerModel):
    status: Literal["success"]
    message: str
    data: SessionTokenList


class MagicLink(AnswerModel):
    magic_url: str
    expires_at: datetime
    redirect_url: str


class MagicLinkAnswer(AnswerModel):
    message: str
    data: MagicLink


class AuthStatus(AnswerModel):
    """`token_type` is absent for a credential that is no token of the sandbox."""

    authenticated: Literal[True]
    token_issued: Literal[True]
    status: Literal["authenticated"]
    available: Literal[False]
    token_type: Literal["access_token", "session_token"] | None = None
    expires_at: datetime | None = None


class AuthStatusAnswer(AnswerModel):
    message: str
    data: AuthStatus


class AuthEndpoints(AnswerModel):
    create_session_token: str
    list_session_tokens: str
    get_session_token: str
    revoke_session_token: str
    create_magic_link: str
    auth_status: str
    auth_info: str


class AuthInfo(AnswerModel):
    message: str
    instructions: str
    endpoints: AuthEndpoints


class AuthInfoAnswer(AnswerModel):
    message: str
    data: AuthInfo


class OldToken(AnswerModel):
    token: str
    expires_in: int
    usage: str


class OldTokenAnswer(AnswerModel):
    message: str
    data: OldToken


class TokenHandlers:
    """One method for each operation."""

    def __init__(self, tokens: SandboxTokens, sandboxes: Sandboxes, settings: Settings) -> None:
        self._tokens = tokens
        self._sandboxes = sandboxes
        self._addresses = Addresses(settings)
        self._domain = settings.previews.domain
        self._body_bytes = settings.server.body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SessionTokenBody, self._body_bytes, optional=True)
        sandbox_id, lasts_s = request.path_params["id"], body.expiresIn or SESSION_S
        description = body.description or ""
        await self._sandboxes.get(principal, sandbox_id)
        made = await self._tokens.mint(
            principal, sandbox_id, kind=TokenKind.SESSION, lasts_s=lasts_s, description=description
        )
        token = await self._tokens.get(principal, sandbox_id, made.id)
        return _one("Session token created", _session(token, made.text), 201)

    async def list(self, request: Request, principal: Principal) -> Response:
        sandbox_id = request.path_params["id"]
        await self._sandboxes.get(principal, sandbox_id)
        found = await self._tokens.list(principal, sandbox_id)
        data = {"tokens": [_session(one) for one in found]}
        return json_response({"status": "success", "message": "Session tokens", "data": data})

    async def get(self, request: Request, principal: Principal) -> Response:
        sandbox_id = request.path_params["id"]
        await self._sandboxes.get(principal, sandbox_id)
        found = await self._tokens.get(principal, sandbox_id, request.path_params["token"])
        return _one("Session token", _session(found))

    async def revoke(self, request: Request, principal: Principal) -> Response:
        sandbox_id = request.path_params["id"]
        await self._sandboxes.get(principal, sandbox_id)
        await self._tokens.revoke(principal, sandbox_id, request.path_params["token"])
        return Response(status_code=204)

    async def old_token(self, request: Request, principal: Principal) -> Response:
        """What older daemons gave to whoever came first: here to one who is known already, and once."""
        sandbox_id = request.path_params["id"]
        await self._sandboxes.get(principal, sandbox_id)
        id = f"stk_{sandbox_id.removeprefix('sess_'):0>24}"  # one of a kind, however many ask at once
        try:
            made = await self._tokens.mint(
                principal, sandbox_id, kind=TokenKind.SESSION, lasts_s=SESSION_S, description=ONCE, id=id
            )
        except Conflict:
            raise Conflict("a token was issued already") from None
        data = {"token": made.text, "expires_in": round(SESSION_S), "usage": "Authorization: Bearer <token>"}
        return json_response({"message": "Token issued", "data": data}, 201, NO_STORE)

    async def magic_link(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, MagicLinkBody, self._body_bytes, optional=True)
        sandbox_id, redirect = request.path_params["id"], _path_of(body.redirectUrl or PLAY)
        await self._sandboxes.get(principal, sandbox_id)
        made = await self._tokens.mint(
            principal, sandbox_id, kind=TokenKind.MAGIC, lasts_s=MAGIC_S, description=redirect
        )
        data = {
            "magic_url": f"{self._addresses.daemon(request, sandbox_id)}/auth/magic?token={made.text}",
            "expires_at": made.expires_at,
            "redirect_url": redirect,
        }
        return json_response({"message": "Magic link created", "data": data}, 201, NO_STORE)

    async def follow(self, request: Request) -> Response:
        """For anybody who has the link; a GET, since that is what following one is."""
        sandbox_id = request.path_params["id"]
        if request.method == "HEAD":  # programs that look through mails ask so: it is not to use the link up
            return Response(b"", 204, PAGE_HEADERS)
        try:
            text = TOKEN.text(request)
            if text is None:
                raise Unauthenticated
            if (there := self._elsewhere(request, sandbox_id)) is not None:
                link = f"{there}/auth/magic?token={quote(text, safe='')}"
                return RedirectResponse(link, 302, headers=PAGE_HEADERS)
            made, redirect = await self._tokens.redeem(text, sandbox_id)
        except (Unauthenticated, InvalidInput):
            page = f"<!doctype html><html lang=en><meta charset=utf-8><title>No such link</title><p>{USED}</html>"
            return HTMLResponse(page, 400, headers=PAGE_HEADERS)
        return self._signed_in(request, sandbox_id, made, redirect)

    def _signed_in(self, request: Request, sandbox_id: str, made: NewToken, redirect: str) -> Response:
        base, named = self._addresses.daemon(request, sandbox_id), self._at_its_host(request, sandbox_id)
        answer = RedirectResponse(redirect if named else base + redirect, 302, headers=PAGE_HEADERS)
        answer.set_cookie(
            COOKIE,
            made.text,
            max_age=round(SESSION_S),
            path="/" if named else f"/sb/{sandbox_id}",
            secure=base.startswith("https:"),
            httponly=True,
            samesite="lax",
        )
        return answer

    def _elsewhere(self, request: Request, sandbox_id: str) -> str | None:
        """Where a link is to be followed, if not here: a cookie of this host would not be sent where it leads, and be
        good for more than one sandbox."""
        base = self._addresses.daemon(request, sandbox_id)
        by_path = base.endswith(f"/sb/{sandbox_id}")
        if by_path or self._at_its_host(request, sandbox_id) or not SANDBOX_ID.fullmatch(sandbox_id):
            return None
        return base

    def _at_its_host(self, request: Request, sandbox_id: str) -> bool:
        name = request.headers.get("host", "").partition(":")[0].lower().rstrip(".")
        return name == f"{subdomain(sandbox_id)}.{self._domain}"

    async def status(self, request: Request, principal: Principal) -> Response:
        await self._sandboxes.get(principal, request.path_params["id"])
        token = await self._tokens.of(principal)
        data: dict[str, Any] = {
            "authenticated": True, "token_issued": True, "status": "authenticated", "available": False
        }  # fmt: skip
        if token is not None:
            kind = "access_token" if token.kind is TokenKind.ACCESS else "session_token"
            data |= {"token_type": kind, "expires_at": token.expires_at}
        return done("Authentication status", data)

    async def info(self, request: Request, principal: Principal) -> Response:
        await self._sandboxes.get(principal, request.path_params["id"])
        data = {
            "message": "This sandbox takes access tokens, session tokens, and the credentials of its owner",
            "instructions": "Send Authorization: Bearer <token>. An access token makes session tokens and magic links.",
            "endpoints": {
                "create_session_token": "POST /auth/session_tokens",
                "list_session_tokens": "GET /auth/session_tokens",
                "get_session_token": "GET /auth/session_tokens/:id",
                "revoke_session_token": "DELETE /auth/session_tokens/:id",
                "create_magic_link": "POST /auth/magic-links",
                "auth_status": "GET /auth/status",
                "auth_info": "GET /auth/info",
            },
        }
        return done("Authentication information", data)


def _path_of(text: str) -> str:
    """InvalidInput for anything that could lead elsewhere: only a path of this daemon."""
    plain = text.isascii() and text.isprintable() and "\\" not in text and " " not in text
    path = unquote(text.partition("?")[0])  # browsers take %2e%2e for ..
    if not plain or not text.startswith("/") or path.startswith("//") or "/../" in f"{path}/":
        raise InvalidInput("redirectUrl must be a path of this daemon, such as /play/", field="redirectUrl")
    return text


def _session(token: SandboxToken, text: str | None = None) -> dict[str, Any]:
    left_s = max(0, round((token.expires_at - datetime.now(UTC)).total_seconds()))
    found: dict[str, Any] = {
        "id": token.id,
        "description": token.description or None,
        "createdAt": token.created_at,
        "created_at": token.created_at,
        "expiresAt": token.expires_at,
        "expires_at": token.expires_at,
        "expiresIn": left_s,
        "expires_in": left_s,
    }
    return found if text is None else found | {"token": text}


def _one(message: str, session: dict[str, Any], status: int = 200) -> Response:
    body = session | {"status": "success", "message": message, "data": session}
    return json_response(body, status, NO_STORE)


def operations(of: TokenHandlers) -> list[Operation]:
    """What is served of tokens."""
    lost = (400, 403, 404, 503)
    error, one = SidekickError, SessionTokenAnswer

    def declared(method: str, path: str, handler: Any, id: str, summary: str, **more: Any) -> Operation:
        errors = (*lost, *more.pop("errors", ()))
        return Operation(method, path, handler, id, summary, tag=TAG, error=error, errors=errors, cookie=COOKIE, **more)

    return [
        declared(
            "POST", SESSION_TOKENS, of.create, "daemonCreateSessionToken", "Make a session token to give away",
            answers=(Answer(201, "the token with its text, this once", one),), body=SessionTokenBody,
            body_required=False, errors=(413, 429),
        ),
        declared(
            "GET", SESSION_TOKENS, of.list, "daemonListSessionTokens", "The session tokens that are good",
            answers=(Answer(200, "oldest first", SessionTokensAnswer),),
        ),
        declared(
            "GET", SESSION_TOKEN, of.get, "daemonGetSessionToken", "Look at a session token",
            answers=(Answer(200, "the token, without its text", one),),
        ),
        declared(
            "DELETE", SESSION_TOKEN, of.revoke, "daemonRevokeSessionToken", "End a session token",
            answers=(Answer(204, "it opens nothing any more"),),
        ),
        declared(
            "POST", DAEMON + "/auth/token", of.old_token, "daemonIssueToken", "A session token, once (older clients)",
            answers=(Answer(201, "the token", OldTokenAnswer),), errors=(409, 429),
        ),
        declared(
            "POST", DAEMON + "/auth/magic-links", of.magic_link, "daemonCreateMagicLink",
            "Make a link that signs a browser in, once, within five minutes",
            answers=(Answer(201, "the link", MagicLinkAnswer),), body=MagicLinkBody, body_required=False,
            errors=(413, 429),
        ),
        declared(
            "GET", DAEMON + "/auth/status", of.status, "daemonAuthStatus", "What your credential is here",
            answers=(Answer(200, "its kind and end", AuthStatusAnswer),),
        ),
        declared(
            "GET", DAEMON + "/auth/info", of.info, "daemonAuthInfo", "How one authenticates here",
            answers=(Answer(200, "in words", AuthInfoAnswer),),
        ),
        Operation(
            "GET", DAEMON + "/auth/magic", of.follow, "daemonFollowMagicLink", "Follow a magic link",
            answers=(
                Answer(302, "to where it leads, with the cookie of a session token", None, HTML),
                Answer(400, "it was used already, or is none", None, HTML),
            ),
            parameters=(TOKEN,), public=True, tag=TAG, error=error,
        ),
    ]  # fmt: skip
