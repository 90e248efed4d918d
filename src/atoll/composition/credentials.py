"""Who asks, in an application: members of groups, users of its own and of identity providers, and all credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.domain.principal import Principal
from atoll.domain.workspace import DEFAULT_NAME
from atoll.limits import auth_limits, identity_providers
from atoll.services.identity.external import External
from atoll.services.identity.groups import Groups
from atoll.services.identity.identity import Identity
from atoll.services.identity.parts import UserParts, make_user_parts
from atoll.services.identity.principals import Principals
from atoll.services.identity.throttling import NAMES_MAX as LOGINS_COUNTED

if TYPE_CHECKING:
    from atoll.app import Application


def groups_of(app: Application) -> Groups:
    """Who leaves one loses what its workspaces are mounted in."""
    groups = Groups(app.records, app.memberships, Principals(app.records))
    groups.left = app.workspaces.left
    return groups


def users_of(app: Application) -> UserParts:
    """Each has a workspace from the first login on."""

    async def welcome(principal: Principal) -> None:
        await app.workspaces.create(principal, DEFAULT_NAME)

    tries = app.counters(LOGINS_COUNTED)
    return make_user_parts(app.records, app.vault, app.capabilities, auth_limits(app.settings), welcome, tries)


def external_of(app: Application) -> External:
    """What knows the tokens of the identity providers, of which there may be none."""
    own, users = app.settings.identity, app.auth
    return External(
        identity_providers(app.settings),
        users.users,
        users.standing,
        app.outbound,
        cache_s=app.settings.keys.cache_s,
        refresh_s=own.refresh_s,
        stale_s=own.stale_s,
    )


def identity_of(app: Application) -> Identity:
    """What makes a principal of whatever somebody comes with."""
    return Identity(
        app.keys,
        app.access_keys,
        app.sandbox_tokens,
        app.connected,
        app.admin_key,
        app.auth.tokens,
        app.external,
        standing=app.auth.standing,
        memberships=app.memberships,
    )
