"""The tools that make, list and stop sandboxes, and show their pages."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from pydantic import Field

from atoll.mcp.answers import PreviewOut, SandboxesOut, SandboxOut, StoppedOut, sandbox_out
from atoll.mcp.calling import Caller, Ctx, Server, told
from atoll.sdk import AsyncSandbox
from atoll.sdk._async.api import connect

LIST_MAX = 200
PORTS_MAX = 16
SandboxRef = Annotated[
    str | None, Field(description="a sandbox's id or name; may be left out where the server has a default one")
]
PortNumber = Annotated[int, Field(ge=1, le=65_535)]


def add_to(mcp: MCPServer, server: Server) -> None:
    @mcp.tool(annotations=ToolAnnotations(destructive_hint=False))
    @told
    async def create_sandbox(
        ctx: Ctx,
        image: Annotated[str, Field(description="a template; `host` has the server's own programs")] = "host",
        workspace: Annotated[
            str | None,
            Field(
                max_length=300,
                description="a workspace to mount at /workspace, where files outlive the sandbox; a new name makes one",
            ),
        ] = None,
        network: Annotated[
            Literal["none", "outgoing", "exposed"], Field(description="exposed: ports of it can be reached too")
        ] = "none",
        ports: Annotated[list[PortNumber] | None, Field(max_length=PORTS_MAX)] = None,
        name: Annotated[str | None, Field(max_length=128)] = None,
        idle_timeout_s: Annotated[
            float, Field(gt=0, le=86_400, description="it ends after this long without use")
        ] = 3_600.0,
    ) -> SandboxOut:
        """Make an isolated Linux computer to run commands in. It is ready at once; stop it when it is not needed.

        A workspace that does not exist yet is made with it."""
        caller = Caller(server, ctx)
        if workspace:
            await caller.ensure_workspace(workspace)
        made = await AsyncSandbox.create(
            image,
            workspace=workspace,
            network="exposed" if ports and network == "none" else network,
            ports=ports,
            name=name,
            idle_timeout=idle_timeout_s,
            url=caller.url,
            api_key=caller.key,
        )
        return sandbox_out(made.created)

    @mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
    @told
    async def list_sandboxes(ctx: Ctx, limit: Annotated[int, Field(ge=1, le=LIST_MAX)] = 50) -> SandboxesOut:
        """The sandboxes that live, newest first."""
        caller = Caller(server, ctx)
        found = await AsyncSandbox.list(state="running", url=caller.url, api_key=caller.key)
        return SandboxesOut(sandboxes=[sandbox_out(one) for one in found[:limit]], more=len(found) > limit)

    @mcp.tool(annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=True))
    @told
    async def stop_sandbox(ctx: Ctx, sandbox: SandboxRef = None) -> StoppedOut:
        """End a sandbox and all that runs in it. Files outside of a workspace are gone then."""
        found = await Caller(server, ctx).sandbox(sandbox)
        await found.kill()
        return StoppedOut(id=found.id, state=(await found.info()).state)

    @mcp.tool(annotations=ToolAnnotations(destructive_hint=False, idempotent_hint=True))
    @told
    async def preview(
        ctx: Ctx,
        port: PortNumber,
        sandbox: SandboxRef = None,
        lasts_s: Annotated[float, Field(gt=0, le=86_400, description="how long the link opens it")] = 3_600.0,
    ) -> PreviewOut:
        """A link at which whoever has it sees the web server that listens on a port of the sandbox, for a time."""
        caller = Caller(server, ctx)
        found = await caller.sandbox(sandbox)
        api = connect(caller.url, caller.key)
        wanted = {"sandbox_id": found.id, "port": port}
        shown = await api.call("POST", "/preview/register", wanted)
        link = await api.call("POST", "/preview/token", {**wanted, "expires_in": lasts_s})
        return PreviewOut(
            url=shown["preview_url"], link=link["url"], expires_at=link["expires_at"], healthy=shown["healthy"]
        )
