"""Logging in, refreshing, logging out, and who one is, as this dialect serves them; and our keys for whoever checks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.ids import SANDBOX_ID
from atoll.domain.principal import Principal
from atoll.services.identity.logins import Logins, TokenPair
from atoll.services.identity.parts import UserParts
from atoll.services.identity.users import is_in_person
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.credentials import bearer_text
from atoll.surfaces.door import network_of
from atoll.surfaces.models import AnswerModel, BodyModel
from atoll.surfaces.operation import Answer, Operation
from atoll.telemetry.trace import trace_of

Username = Annotated[str, Field(min_length=1, max_length=256)]
Password = Annotated[str, Field(min_length=1, max_length=1024)]
Token = Annotated[str, Field(min_length=1, max_length=256)]
NOT_KEPT = {"cache-control": "no-store"}  # RFC 6749: nobody on the way keeps a token


class LoginBody(BodyModel):
    """POST /auth/login."""

    username: Username
    password: Password


class RegisterBody(BodyModel):
    """POST /auth/register."""

    username: Username
    password: Password
    name: Annotated[str, Field(max_length=255)] = ""


class RefreshBody(BodyModel):
    """POST /auth/refresh."""

    refresh_token: Token


class LogoutBody(BodyModel):
    """POST /auth/logout."""

    refresh_token: Token | None = Field(None, description="of the login to end; else the access token's is ended")


class PasswordBody(BodyModel):
    """POST /auth/password."""

    old_password: Password
    new_password: Password


class TokensAnswer(AnswerModel):
    """What opens everything, for a while, and what opens it anew."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"]
    expires_in: int = Field(description="seconds that the access token is good for")


class LoggedOutAnswer(AnswerModel):
    logged_out: bool


class PasswordChangedAnswer(AnswerModel):
    changed: bool


class MeAnswer(AnswerModel):
    """Who asks."""

    id: str
    kind: Literal["user", "key", "sandbox"]
    username: str | None
    name: str
    admin: bool
    scopes: list[str]
    groups: dict[str, str] = Field(description="the role in each group, by its id")
    credential: str


class JwksAnswer(AnswerModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, Any]]


class AuthHandlers:
    """One method for each operation."""

    def __init__(self, parts: UserParts, settings: Settings) -> None:
        self._logins: Logins = parts.logins
        self._signing_keys = parts.signing_keys
        self._body_bytes = min(settings.server.body_bytes, 64 * 1024)

    async def login(self, request: Request) -> Response:
        body = await read_model(request, LoginBody, self._body_bytes)
        return _tokens(await self._logins.login(body.username, body.password, address=_address(request)))

    async def register(self, request: Request) -> Response:
        body = await read_model(request, RegisterBody, self._body_bytes)
        made = await self._logins.register(body.username, body.password, name=body.name, address=_address(request))
        return _tokens(made, 201)

    async def refresh(self, request: Request) -> Response:
        body = await read_model(request, RefreshBody, self._body_bytes)
        return _tokens(await self._logins.refresh(body.refresh_token, address=_address(request)))

    async def logout(self, request: Request) -> Response:
        body = await read_model(request, LogoutBody, self._body_bytes, optional=True)
        header = request.headers.get("authorization")
        access = None if header is None else bearer_text(header.encode("latin-1"))
        await self._logins.logout(refresh_token=body.refresh_token, access_token=access)
        return json_response({"logged_out": True})

    async def password(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, PasswordBody, self._body_bytes)
        await self._logins.change_password(principal, body.old_password, body.new_password, address=_address(request))
        return json_response({"changed": True})

    async def me(self, _request: Request, principal: Principal) -> Response:
        user = await self._logins.me(principal)
        return json_response(
            {
                "id": principal.id,
                "kind": _kind(principal),
                "username": None if user is None else user.username,
                "name": principal.name,
                "admin": principal.admin,
                "scopes": sorted(principal.scopes),
                "groups": {group: role.value for group, role in principal.groups.items()},
                "credential": principal.credential,
            }
        )

    async def jwks(self, _request: Request) -> Response:
        answer = json_response(await self._signing_keys.jwks())
        answer.headers["cache-control"] = "public, max-age=60"
        return answer


def operations(parts: UserParts, settings: Settings) -> list[Operation]:
    """What this dialect serves of logging in."""
    of = AuthHandlers(parts, settings)
    tag, error, body = "users", ComputeError, (400, 413)
    tokens = Answer(200, "the tokens", TokensAnswer)
    return [
        Operation(
            "POST", "/auth/login", of.login, "login", "Log in with a username and a password",
            answers=(tokens,), body=LoginBody, errors=(*body, 401, 429, 503, 504), public=True, tag=tag, error=error,
        ),
        Operation(
            "POST", "/auth/refresh", of.refresh, "refresh", "Exchange a refresh token for the next pair of tokens",
            answers=(tokens,), body=RefreshBody, errors=(*body, 401, 429, 503, 504), public=True, tag=tag, error=error,
            description="Each refresh token is good once: a second use ends the whole login.",
        ),
        Operation(
            "POST", "/auth/logout", of.logout, "logout", "End the login of a refresh token, or of the access token",
            answers=(Answer(200, "it is over", LoggedOutAnswer),), body=LogoutBody, body_required=False,
            errors=(*body, 401, 429, 503, 504), public=True, tag=tag, error=error,
        ),
        Operation(
            "POST", "/auth/register", of.register, "register", "Make yourself a user, where the settings let everybody",
            answers=(Answer(201, "the tokens", TokensAnswer),), body=RegisterBody,
            errors=(*body, 404, 409, 429, 503, 504), public=True, tag=tag, error=error,
        ),
        Operation(
            "POST", "/auth/password", of.password, "changePassword", "Change your own password; every login ends",
            answers=(Answer(200, "it is changed", PasswordChangedAnswer),), body=PasswordBody,
            errors=(*body, 403, 409, 429, 503, 504), tag=tag, error=error,
        ),
        Operation(
            "GET", "/auth/me", of.me, "me", "Who you are to this server",
            answers=(Answer(200, "who asks", MeAnswer),), errors=(503,), tag=tag, error=error,
        ),
        Operation(
            "GET", "/.well-known/jwks.json", of.jwks, "jwks", "The keys that access tokens are signed with",
            answers=(Answer(200, "the key set", JwksAnswer),), errors=(503,), public=True, tag=tag, error=error,
        ),
    ]  # fmt: skip


def _kind(principal: Principal) -> str:
    if is_in_person(principal):
        return "user"
    return "sandbox" if SANDBOX_ID.match(principal.credential) else "key"


def _address(request: Request) -> str:
    """Whose attempts count together."""
    return network_of(trace_of(request.scope).peer or "unknown")


def _tokens(pair: TokenPair, status: int = 200) -> Response:
    answer = json_response(
        {
            "access_token": pair.access.text,
            "refresh_token": pair.refresh,
            "token_type": "Bearer",
            "expires_in": pair.access.expires_in_s,
        },
        status,
    )
    answer.headers.update(NOT_KEPT)
    return answer
