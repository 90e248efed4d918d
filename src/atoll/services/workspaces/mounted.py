"""Mounted: which live sandbox has which workspace mounted, in memory, so that nothing has to be asked for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from atoll.domain.errors import Conflict
from atoll.domain.workspace import WorkspaceMount


class MountedAt(NamedTuple):
    """One mount of a workspace in a live sandbox, or in one that is being made (`made` False)."""

    sandbox: str
    mount: WorkspaceMount
    made: bool


class Mounted:
    """Mounts by sandbox. Every mount is entered before the runtime makes the sandbox, and taken out after its end."""

    def __init__(self) -> None:
        self._mounts: dict[str, dict[str, MountedAt]] = {}  # sandbox -> path -> mount
        self._sandboxes: dict[str, set[str]] = {}  # workspace -> sandboxes

    def enter(self, sandbox_id: str, mounts: Iterable[WorkspaceMount], *, made: bool) -> None:
        at = self._mounts.setdefault(sandbox_id, {})
        for mount in mounts:
            at[mount.path] = MountedAt(sandbox_id, mount, made)
            self._sandboxes.setdefault(mount.workspace, set()).add(sandbox_id)

    def made(self, sandbox_id: str) -> None:
        at = self._mounts.get(sandbox_id, {})
        for path, one in at.items():
            at[path] = one._replace(made=True)

    def swapped(self, one: MountedAt, tree_id: str) -> None:
        at = self._mounts.get(one.sandbox)
        if at is not None and one.mount.path in at:
            at[one.mount.path] = one._replace(mount=replace(one.mount, tree_id=tree_id))

    def leave(self, sandbox_id: str) -> list[WorkspaceMount]:
        """Those that it had."""
        left = [one.mount for one in self._mounts.pop(sandbox_id, {}).values()]
        for workspace in {mount.workspace for mount in left}:
            self._sandboxes[workspace].discard(sandbox_id)
            if not self._sandboxes[workspace]:
                del self._sandboxes[workspace]
        return left

    def of_sandbox(self, sandbox_id: str) -> list[MountedAt]:
        return list(self._mounts.get(sandbox_id, {}).values())

    def of_workspace(self, workspace_id: str) -> list[MountedAt]:
        return [
            one
            for sandbox_id in sorted(self._sandboxes.get(workspace_id, ()))
            for one in self._mounts[sandbox_id].values()
            if one.mount.workspace == workspace_id
        ]

    def check_free(self, workspace_id: str, *, but: str | None = None) -> None:
        """Conflict while a sandbox, other than `but`, has the workspace mounted."""
        mounted = sorted({one.sandbox for one in self.of_workspace(workspace_id)} - {but})
        if mounted:
            raise Conflict(f"the workspace is mounted: end {', '.join(mounted)} first")

    def writable(self, workspace_id: str) -> bool:
        return any(not one.mount.read_only for one in self.of_workspace(workspace_id))

    def has_tree(self, tree_id: str) -> bool:
        return any(one.mount.tree_id == tree_id for at in self._mounts.values() for one in at.values())

    def sandboxes(self) -> list[str]:
        return list(self._mounts)
