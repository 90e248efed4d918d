"""The tools of time: keep a workspace as it is, and bring back what was kept."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from pydantic import Field

from atoll.mcp.answers import RestoredOut, SnapshotOut
from atoll.mcp.calling import Caller, Ctx, Server, told
from atoll.sdk import AsyncWorkspace

WorkspaceRef = Annotated[str, Field(min_length=1, max_length=300, description="a workspace's name or id")]


def add_to(mcp: MCPServer, server: Server) -> None:
    @mcp.tool(annotations=ToolAnnotations(destructive_hint=False))
    @told
    async def snapshot(
        ctx: Ctx,
        workspace: WorkspaceRef,
        name: Annotated[str | None, Field(max_length=128, description="to find it again by")] = None,
    ) -> SnapshotOut:
        """Keep a workspace as it is now, also while sandboxes work on it."""
        caller = Caller(server, ctx)
        found = await AsyncWorkspace.get(workspace, url=caller.url, api_key=caller.key)
        kept = await found.snapshot(name)
        return SnapshotOut(id=kept.id, name=kept.name, workspace=found.id, revision=kept.revision)

    @mcp.tool(annotations=ToolAnnotations(destructive_hint=True))
    @told
    async def restore(
        ctx: Ctx,
        workspace: WorkspaceRef,
        snapshot: Annotated[
            str, Field(min_length=1, max_length=300, description="a snapshot's id or name, a revision")
        ],
        path: Annotated[str | None, Field(max_length=4_096, description="that path alone")] = None,
    ) -> RestoredOut:
        """Bring a workspace back to a snapshot. Sandboxes that have it mounted see it at once; nothing is lost."""
        caller = Caller(server, ctx)
        found = await AsyncWorkspace.get(workspace, url=caller.url, api_key=caller.key)
        done = await found.restore(snapshot, path)
        return RestoredOut(workspace=found.id, revision=done.revision.id, changed=done.changed)
