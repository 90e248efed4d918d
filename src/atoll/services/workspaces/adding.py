"""Adding: what may be a workspace, and how a new one gets into the records; creating and forking both end here."""

from __future__ import annotations

from atoll.domain.errors import Conflict, InvalidInput, QuotaExceeded
from atoll.domain.ids import workspace_id_of
from atoll.domain.key import KeyKind
from atoll.domain.principal import Principal
from atoll.domain.workspace import Revision, Workspace
from atoll.records.base import Records
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.quotas import check_possible

TAG_CHARS_MAX = 64


class Adding:
    """Checks and inserts."""

    def __init__(self, records: Records, access: WorkspaceAccess, limits: WorkspaceLimits) -> None:
        self._records = records
        self._access = access
        self._limits = limits

    async def check(self, workspace: Workspace) -> None:
        """InvalidInput for a field, Conflict when the name is taken. Before anything is stored; `add` decides."""
        self.check_fields(workspace)
        if await self._records.find_workspace(workspace.owner, workspace.name) is not None:
            raise taken(workspace.name)

    def check_fields(self, workspace: Workspace) -> None:
        """InvalidInput naming the field: name, description, tags, quotaBytes or quotaInodes."""
        limits, name = self._limits, workspace.name
        if not name.strip() or len(name) > limits.name_chars_max or not name.isprintable():
            raise _bad("name", f"must be 1 to {limits.name_chars_max} printable characters")
        if "/" in name or name in (".", ".."):
            raise _bad("name", "must be able to stand in a path: without '/', and not '.' or '..'")
        if workspace_id_of(name) is not None:
            raise _bad("name", "must not look like an id")
        if len(workspace.description or "") > limits.text_chars_max:
            raise _bad("description", f"must be at most {limits.text_chars_max} characters")
        if len(workspace.tags) > limits.tags_max:
            raise _bad("tags", f"must be at most {limits.tags_max}")
        if any(not tag or len(tag) > TAG_CHARS_MAX or not tag.isprintable() for tag in workspace.tags):
            raise _bad("tags", f"must be of 1 to {TAG_CHARS_MAX} printable characters each")
        if any(_unsound(text) for text in (name, workspace.description or "", *workspace.tags)):
            raise _bad("name", "and other texts must be valid Unicode without NUL")
        check_possible(workspace.quota, limits.quota_max)

    async def add(self, principal: Principal, workspace: Workspace, revision: Revision, action: str) -> None:
        """Insert it with its first revision. Conflict for the name, QuotaExceeded for the owner's number of them."""
        quota = self._limits.workspaces_per_key if principal.kind is KeyKind.STANDARD else None
        event = self._access.event(
            action, workspace, principal.id, name=workspace.name, forked_from=workspace.forked_from
        )
        try:
            await self._records.add_workspace(workspace, revision, None, event, quota=quota)
        except QuotaExceeded:
            raise QuotaExceeded(f"workspace limit reached ({quota}/{quota})") from None
        except Conflict:
            raise taken(workspace.name) from None
        self._access.changed(workspace.id)


def taken(name: str) -> Conflict:
    return Conflict(f"you have a workspace named {name!r} already")


def _bad(field: str, rule: str) -> InvalidInput:
    return InvalidInput(f"{field} {rule}", field=field)


def _unsound(text: str) -> bool:
    return "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)
