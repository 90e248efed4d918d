"""The tools that run something: a command for the shell, or code of a language."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from pydantic import Field

from atoll.mcp.answers import CommandOut
from atoll.mcp.calling import Caller, Ctx, Server, told
from atoll.mcp.sandbox_tools import SandboxRef
from atoll.sdk.values import Result

OUTPUT_CHARS, OUTPUT_CHARS_MAX = 30_000, 200_000  # of each stream, in an answer
COLLECTED_BYTES = 2 * 2**20  # of each stream, of which the answer keeps the beginning and the end
TIMEOUT_S, TIMEOUT_S_MAX = 120.0, 3_600.0
TEXT_CHARS_MAX = 1_000_000
PROGRAMS = {
    "python": ("python3", "-"),
    "javascript": ("node", "-"),
    "bash": ("bash", "-s"),
    "sh": ("sh", "-s"),
    "ruby": ("ruby", "-"),
    "perl": ("perl", "-"),
}
Timeout = Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX, description="seconds; it is ended after them")]
Cwd = Annotated[str | None, Field(max_length=4_096, description="where it starts; default: /workspace, or /")]
Chars = Annotated[int, Field(ge=100, le=OUTPUT_CHARS_MAX, description="of each stream, kept in the answer")]


def add_to(mcp: MCPServer, server: Server) -> None:
    @mcp.tool(annotations=ToolAnnotations(destructive_hint=True, open_world_hint=True))
    @told
    async def run_command(
        ctx: Ctx,
        command: Annotated[str, Field(min_length=1, max_length=TEXT_CHARS_MAX, description="for the shell")],
        sandbox: SandboxRef = None,
        cwd: Cwd = None,
        env: dict[str, str] | None = None,
        stdin: Annotated[str | None, Field(max_length=TEXT_CHARS_MAX)] = None,
        timeout_s: Timeout = TIMEOUT_S,
        max_output_chars: Chars = OUTPUT_CHARS,
    ) -> CommandOut:
        """Run a command in a sandbox and wait for its end. What it started in the background goes on."""
        found = await Caller(server, ctx).sandbox(sandbox)
        ran = await found.run(
            command, cwd=cwd, env=env, stdin=stdin, timeout=timeout_s, max_output_bytes=COLLECTED_BYTES
        )
        return command_out(ran, max_output_chars)

    @mcp.tool(annotations=ToolAnnotations(destructive_hint=True, open_world_hint=True))
    @told
    async def run_code(
        ctx: Ctx,
        code: Annotated[str, Field(min_length=1, max_length=TEXT_CHARS_MAX)],
        language: Literal["python", "javascript", "bash", "sh", "ruby", "perl"] = "python",
        sandbox: SandboxRef = None,
        cwd: Cwd = None,
        timeout_s: Timeout = TIMEOUT_S,
        max_output_chars: Chars = OUTPUT_CHARS,
    ) -> CommandOut:
        """Run code in a sandbox, each time in an interpreter of its own. Exit code 127: it has no such interpreter."""
        found = await Caller(server, ctx).sandbox(sandbox)
        ran = await found.run(
            PROGRAMS[language], cwd=cwd, stdin=code, timeout=timeout_s, max_output_bytes=COLLECTED_BYTES
        )
        return command_out(ran, max_output_chars)


def command_out(ran: Result, chars: int) -> CommandOut:
    """How it ended, with as much of its output as an answer takes."""
    stdout, stderr = clipped(ran.stdout, chars), clipped(ran.stderr, chars)
    return CommandOut(
        exit_code=ran.exit_code,
        stdout=stdout,
        stderr=stderr,
        timed_out=ran.timed_out,
        truncated=ran.truncated or stdout != ran.stdout or stderr != ran.stderr,
    )


def clipped(text: str, chars: int) -> str:
    """The text, or its beginning and its end: what failed is often told last."""
    if len(text) <= chars:
        return text
    half = chars // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
