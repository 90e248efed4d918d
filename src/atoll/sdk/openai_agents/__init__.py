"""Atoll as a sandbox of the OpenAI Agents SDK (extra `atoll[openai-agents]`).

from atoll.sdk.openai_agents import AtollSandboxClient, AtollSandboxClientOptions
"""

from __future__ import annotations

from atoll.sdk.openai_agents.client import AtollSandboxClient
from atoll.sdk.openai_agents.session import AtollSandboxSession
from atoll.sdk.openai_agents.state import AtollSandboxClientOptions, AtollSandboxSessionState

__all__ = ["AtollSandboxClient", "AtollSandboxClientOptions", "AtollSandboxSession", "AtollSandboxSessionState"]
