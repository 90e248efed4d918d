"""Who calls a tool, and how its faults are told; every tool begins here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from atoll.domain.errors import AtollError, InvalidInput, NotFound, RateLimited, Unauthenticated
from atoll.domain.ids import SANDBOX_ID, workspace_id_of
from atoll.sdk import AsyncSandbox, AsyncWorkspace

P = ParamSpec("P")
R = TypeVar("R")
Ctx = Context[Any, Any]
NAME_CHARS_MAX = 128


@dataclass(frozen=True, slots=True)
class Server:
    """Which API the tools use. `api_key` is None where every caller brings their own; `sandbox` is meant where a tool
    is given none."""

    url: str | None = None
    api_key: str | None = None
    callers_key: bool = False
    sandbox: str | None = None


class Caller:
    """The API as one caller may use it."""

    def __init__(self, server: Server, context: Ctx) -> None:
        self._server = server
        self.key = _bearer(context) if server.callers_key else server.api_key
        self.url = server.url

    async def sandbox(self, given: str | None) -> AsyncSandbox:
        """The sandbox of an id, or of a name: of those that have it the one that lives, else the one that came last."""
        wanted = given or self._server.sandbox
        if not wanted:
            raise InvalidInput("sandbox is required: create_sandbox makes one, list_sandboxes shows yours")
        if len(wanted) > NAME_CHARS_MAX:
            raise InvalidInput(f"sandbox must have at most {NAME_CHARS_MAX} characters")
        if not SANDBOX_ID.match(wanted):
            found = await AsyncSandbox.list(url=self.url, api_key=self.key)
            named = [one for one in found if one.name == wanted]  # newest first
            ids = [one.id for one in named if one.live] or [one.id for one in named[:1]]
            if len(ids) > 1:
                raise InvalidInput(f"{len(ids)} sandboxes have this name: say which by its id ({', '.join(ids[:5])})")
            if not ids:
                raise _no_sandbox(wanted)
            wanted = ids[0]
        try:
            return await AsyncSandbox.connect(wanted, url=self.url, api_key=self.key)
        except NotFound:
            raise _no_sandbox(wanted) from None

    async def ensure_workspace(self, name: str) -> None:
        """Make it where there is none; NotFound for what can be no name of a new one: an id, or another's."""
        try:
            await AsyncWorkspace.get(name, url=self.url, api_key=self.key)
        except NotFound:
            if "/" in name or workspace_id_of(name):
                raise
            found = await AsyncWorkspace.list(name=name, shared=True, url=self.url, api_key=self.key)
            if found:  # one of these may be meant: the error says how to name it
                raise
            await AsyncWorkspace.create(name, url=self.url, api_key=self.key)


def told(tool: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """The tool, with errors as the model is to read them: what is wrong, under its stable code."""

    @wraps(tool)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await tool(*args, **kwargs)
        except AtollError as error:
            raise ToolError(f"{error.code}: {error.message}{_again(error)}") from error

    return call


def _no_sandbox(given: str) -> NotFound:
    return NotFound(f"there is no sandbox {given!r}: list_sandboxes shows yours")


def _again(error: AtollError) -> str:
    if isinstance(error, RateLimited):
        return f" (try again in {error.retry_after_s} s)"
    return " (trying again may help)" if error.retryable else ""


def _bearer(context: Ctx) -> str:
    """The credential of the HTTP request that this call came in: it is never anybody else's."""
    request = context.request_context.request
    value = "" if request is None else request.headers.get("authorization", "")
    scheme, _, text = value.partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthenticated
    return text.strip()
