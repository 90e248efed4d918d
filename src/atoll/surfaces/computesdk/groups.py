"""Groups and their members, as this dialect serves them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.group import Member, Membership, Role
from atoll.domain.principal import Principal
from atoll.services.identity.groups import Groups
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.models import AnswerModel, BodyModel
from atoll.surfaces.operation import Answer, Operation

GROUPS = "/api/groups"
GROUP = GROUPS + "/{group}"
MEMBERS = GROUP + "/members"
MEMBER = MEMBERS + "/{member}"
RoleName = Literal["viewer", "member", "admin"]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=4096)]


class GroupBody(BodyModel):
    """POST /api/groups."""

    name: Name
    description: Text | None = None


class GroupChangesBody(BodyModel):
    """PATCH /api/groups/{group}."""

    name: Name | None = None
    description: Text | None = Field(None, description="empty takes it away")


class MemberBody(BodyModel):
    """POST /api/groups/{group}/members."""

    principal: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="the id or name of a user, or the id of a key: its owner becomes a member"
    )
    role: RoleName = "member"


class RoleBody(BodyModel):
    """PATCH and PUT /api/groups/{group}/members/{member}."""

    role: RoleName


class GroupAnswer(AnswerModel):
    """A group, and the role that one has in it."""

    id: str = Field(pattern=r"^grp_[0-9a-f]{24}$")
    name: str
    description: str | None
    role: RoleName
    created_at: datetime
    updated_at: datetime


class GroupsAnswer(AnswerModel):
    groups: list[GroupAnswer]


class MemberAnswer(AnswerModel):
    """Somebody who belongs to a group."""

    principal: str
    name: str | None = Field(description="a user's username, or a key's name; null: it is gone")
    role: RoleName
    added_at: datetime


class MembersAnswer(AnswerModel):
    members: list[MemberAnswer]


class GroupDeletedAnswer(AnswerModel):
    deleted: bool


class MemberRemovedAnswer(AnswerModel):
    removed: bool


class GroupHandlers:
    """One method for each operation."""

    def __init__(self, groups: Groups, settings: Settings) -> None:
        self._groups = groups
        self._body_bytes = settings.server.body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, GroupBody, self._body_bytes)
        return json_response(_group(await self._groups.create(principal, body.name, body.description)), 201)

    async def list(self, _request: Request, principal: Principal) -> Response:
        return json_response({"groups": [_group(one) for one in await self._groups.list(principal)]})

    async def get(self, request: Request, principal: Principal) -> Response:
        return json_response(_group(await self._groups.get(principal, request.path_params["group"])))

    async def change(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, GroupChangesBody, self._body_bytes)
        changed = await self._groups.change(
            principal, request.path_params["group"], name=body.name, description=body.description
        )
        return json_response(_group(changed))

    async def delete(self, request: Request, principal: Principal) -> Response:
        await self._groups.delete(principal, request.path_params["group"])
        return json_response({"deleted": True})

    async def members(self, request: Request, principal: Principal) -> Response:
        found = await self._groups.members(principal, request.path_params["group"])
        return json_response({"members": [await self._member(one) for one in found]})

    async def add(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, MemberBody, self._body_bytes)
        added = await self._groups.add(principal, request.path_params["group"], body.principal, Role(body.role))
        return json_response(await self._member(added), 201)

    async def set_role(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, RoleBody, self._body_bytes)
        group, member = request.path_params["group"], request.path_params["member"]
        changed = await self._groups.set_role(principal, group, member, Role(body.role))
        return json_response(await self._member(changed))

    async def remove(self, request: Request, principal: Principal) -> Response:
        await self._groups.remove(principal, request.path_params["group"], request.path_params["member"])
        return json_response({"removed": True})

    async def _member(self, one: Member) -> dict[str, Any]:
        name = await self._groups.name_of(one)
        return {"principal": one.principal, "name": name, "role": one.role.value, "added_at": one.added_at}


def operations(groups: Groups, settings: Settings) -> list[Operation]:
    """What is served of groups."""
    of = GroupHandlers(groups, settings)
    tag, error, lost, body = "groups", ComputeError, (404, 503), (400, 413)
    group, member = Answer(200, "the group", GroupAnswer), Answer(200, "the member", MemberAnswer)
    return [
        Operation(
            "POST", GROUPS, of.create, "createGroup", "Create a group, with yourself as its admin",
            answers=(Answer(201, "the group", GroupAnswer),), body=GroupBody,
            errors=(*body, 429, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", GROUPS, of.list, "listGroups", "The groups that you belong to, oldest first",
            answers=(Answer(200, "the groups", GroupsAnswer),), errors=(503,), tag=tag, error=error,
        ),
        Operation(
            "GET", GROUP, of.get, "getGroup", "Look at a group",
            answers=(group,), errors=lost, tag=tag, error=error,
        ),
        Operation(
            "PATCH", GROUP, of.change, "changeGroup", "Rename or describe a group",
            answers=(group,), body=GroupChangesBody, errors=(*body, 409, *lost), tag=tag, error=error,
        ),
        Operation(
            "DELETE", GROUP, of.delete, "deleteGroup", "Delete a group that owns nothing",
            answers=(Answer(200, "it is gone", GroupDeletedAnswer),), errors=(409, *lost), tag=tag, error=error,
        ),
        Operation(
            "GET", MEMBERS, of.members, "listGroupMembers", "Who belongs to a group",
            answers=(Answer(200, "the members", MembersAnswer),), errors=lost, tag=tag, error=error,
        ),
        Operation(
            "POST", MEMBERS, of.add, "addGroupMember", "Add somebody to a group",
            answers=(Answer(201, "the member", MemberAnswer),), body=MemberBody,
            errors=(*body, 409, 429, *lost), tag=tag, error=error,
        ),
        Operation(
            "PUT", MEMBER, of.set_role, "setGroupRole", "Say what a member may do",
            answers=(member,), body=RoleBody, errors=(*body, 409, *lost), tag=tag, error=error,
        ),
        Operation(
            "PATCH", MEMBER, of.set_role, "changeGroupRole", "Say what a member may do",
            answers=(member,), body=RoleBody, errors=(*body, 409, *lost), tag=tag, error=error,
        ),
        Operation(
            "DELETE", MEMBER, of.remove, "removeGroupMember", "Take somebody out of a group, or leave it",
            answers=(Answer(200, "no member any more", MemberRemovedAnswer),),
            errors=(409, *lost), tag=tag, error=error,
        ),
    ]  # fmt: skip


def _group(one: Membership) -> dict[str, Any]:
    group = one.group
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "role": one.role.value,
        "created_at": group.created_at,
        "updated_at": group.updated_at,
    }
