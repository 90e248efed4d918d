"""The server of tools, whatever it speaks over: `http` and `atoll mcp` run it."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

from atoll import __version__
from atoll.mcp import command_tools, file_tools, sandbox_tools, workspace_tools
from atoll.mcp.calling import Server

INSTRUCTIONS = """Atoll gives you isolated Linux computers (sandboxes). Make one with create_sandbox, pass its id as
`sandbox` to the other tools, and end it with stop_sandbox. Files that are to outlive a sandbox belong into a workspace,
which create_sandbox mounts at /workspace, and makes where there is none of that name; snapshot keeps a workspace's
state and restore brings it back."""


def make_server(server: Server) -> MCPServer:
    """All tools, on that API."""
    mcp = MCPServer(
        "atoll", title="Atoll", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING",
        website_url=None, subscriptions=False,
    )  # fmt: skip
    for tools in (sandbox_tools, command_tools, file_tools, workspace_tools):
        tools.add_to(mcp, server)
    return mcp
