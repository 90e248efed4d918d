"""Users, for administrators, as this dialect serves them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.domain.user import User
from atoll.services.identity.parts import UserParts
from atoll.services.identity.users import LISTED_MAX, UserChanges
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.models import AnswerModel, BodyModel
from atoll.surfaces.operation import Answer, Operation, Parameter

USERS = "/api/users"
USER = USERS + "/{user}"
Name = Annotated[str, Field(max_length=255)]
Password = Annotated[str, Field(min_length=1, max_length=1024)]

AFTER = Parameter("after", "only usernames behind this one", max_chars=128)
LIMIT = Parameter("limit", "at most so many", int, minimum=1, maximum=LISTED_MAX)


class UserBody(BodyModel):
    """POST /api/users."""

    username: Annotated[str, Field(min_length=1, max_length=128)]
    password: Password | None = Field(None, description="without one nobody can log in as them yet")
    name: Name = ""
    admin: bool = False


class UserChangesBody(BodyModel):
    """PATCH /api/users/{user}."""

    name: Name | None = None
    admin: bool | None = None
    disabled: bool | None = None


class NewPasswordBody(BodyModel):
    """POST /api/users/{user}/password."""

    password: Password


class UserAnswer(AnswerModel):
    """A user."""

    id: str = Field(pattern=r"^user_[0-9a-f]{24}$")
    username: str
    name: str
    admin: bool
    disabled: bool
    issuer: str | None = Field(description="the identity provider that they log in at")
    subject: str | None
    created_at: datetime


class UsersAnswer(AnswerModel):
    users: list[UserAnswer]


class UserDeletedAnswer(AnswerModel):
    deleted: bool


class UserHandlers:
    """One method for each operation."""

    def __init__(self, parts: UserParts, settings: Settings) -> None:
        self._users = parts.users
        self._body_bytes = settings.server.body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, UserBody, self._body_bytes)
        made = await self._users.create(principal, body.username, body.password, name=body.name, admin=body.admin)
        return json_response(_shown(made), 201)

    async def list(self, request: Request, principal: Principal) -> Response:
        limit = LIMIT.number(request) or LISTED_MAX
        found = await self._users.list(principal, after=AFTER.text(request) or "", limit=limit)
        return json_response({"users": [_shown(user) for user in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        return json_response(_shown(await self._users.get(principal, request.path_params["user"])))

    async def change(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, UserChangesBody, self._body_bytes)
        changes = UserChanges(body.name, body.admin, body.disabled)
        return json_response(_shown(await self._users.change(principal, request.path_params["user"], changes)))

    async def set_password(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, NewPasswordBody, self._body_bytes)
        user = await self._users.set_password(principal, request.path_params["user"], body.password)
        return json_response(_shown(user))

    async def delete(self, request: Request, principal: Principal) -> Response:
        await self._users.delete(principal, request.path_params["user"])
        return json_response({"deleted": True})


def operations(parts: UserParts, settings: Settings) -> list[Operation]:
    """What this dialect serves of users."""
    of = UserHandlers(parts, settings)
    tag, error, body, lost = "users", ComputeError, (400, 413), (403, 404, 503, 504)
    user = Answer(200, "the user", UserAnswer)
    return [
        Operation(
            "POST", USERS, of.create, "createUser", "Make a user; for administrators",
            answers=(Answer(201, "the user", UserAnswer),), body=UserBody,
            errors=(*body, 403, 409, 503, 504), tag=tag, error=error,
        ),
        Operation(
            "GET", USERS, of.list, "listUsers", "Users by name; for administrators",
            answers=(Answer(200, "the users", UsersAnswer),), parameters=(AFTER, LIMIT),
            errors=(400, 403, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", USER, of.get, "getUser", "Look at a user, by id or username; for administrators",
            answers=(user,), errors=lost, tag=tag, error=error,
        ),
        Operation(
            "PATCH", USER, of.change, "changeUser", "Rename, disable or enable a user; for administrators",
            answers=(user,), body=UserChangesBody, errors=(*body, 409, *lost), tag=tag, error=error,
            description="Disabling ends every login at once; keys of the user open nothing until they are enabled.",
        ),
        Operation(
            "DELETE", USER, of.delete, "deleteUser", "Delete a user that owns nothing; for administrators",
            answers=(Answer(200, "they are gone", UserDeletedAnswer),), errors=(409, *lost), tag=tag, error=error,
        ),
        Operation(
            "POST", USER + "/password", of.set_password, "setPassword", "Set a user's password; for administrators",
            answers=(user,), body=NewPasswordBody, errors=(*body, 409, *lost), tag=tag, error=error,
        ),
    ]  # fmt: skip


def _shown(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "name": user.name,
        "admin": user.admin,
        "disabled": not user.usable,
        "issuer": user.issuer,
        "subject": user.subject,
        "created_at": user.created_at,
    }
