"""What a sandbox is asked to be, and what is kept of a session: both go to JSON and back, and no key is in either."""

from __future__ import annotations

from typing import Any, Literal

from agents.sandbox.session import SandboxSessionState
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions

Network = Literal["none", "outgoing", "exposed"]


class AtollSandboxClientOptions(BaseSandboxClientOptions):
    """`workspace`: a workspace mounted at the manifest's root, made where there is none of that name; what is in it
    outlives the sandbox, and the session's snapshots are the workspace's own. Without one, a folder that goes with the
    sandbox, and snapshots that are archives. `network` is none, or exposed with `exposed_ports`, unless it is said."""

    type: Literal["atoll"] = "atoll"  # pyright: ignore[reportIncompatibleVariableOverride] - as the SDK's own do
    image: str = "host"
    workspace: str | None = None
    network: Network | None = None
    exposed_ports: tuple[int, ...] = ()
    name: str | None = None
    env: dict[str, str] | None = None
    cpus: float | None = None
    memory_mb: int | None = None
    timeout_s: float | None = None
    idle_timeout_s: float | None = None


class AtollSandboxSessionState(SandboxSessionState):
    """A session: which sandbox it is, on which server, and how to make it again."""

    type: Literal["atoll"] = "atoll"  # pyright: ignore[reportIncompatibleVariableOverride] - as the SDK's own do
    url: str
    sandbox_id: str
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it

    def asked(self) -> AtollSandboxClientOptions:
        """What the sandbox was asked to be."""
        return AtollSandboxClientOptions.model_validate(self.options)
