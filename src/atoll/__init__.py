"""Atoll: a self-hosted cloud of computers for AI agents and developers.

The client's names (`from atoll import Sandbox`) load when first used: the node and the server import this too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.sdk import Agent as Agent
    from atoll.sdk import AsyncAgent as AsyncAgent
    from atoll.sdk import AsyncSandbox as AsyncSandbox
    from atoll.sdk import AsyncSecrets as AsyncSecrets
    from atoll.sdk import AsyncWorkspace as AsyncWorkspace
    from atoll.sdk import AtollError as AtollError
    from atoll.sdk import CloudRuntime as CloudRuntime
    from atoll.sdk import LocalRuntime as LocalRuntime
    from atoll.sdk import Result as Result
    from atoll.sdk import RunResult as RunResult
    from atoll.sdk import Sandbox as Sandbox
    from atoll.sdk import Secrets as Secrets
    from atoll.sdk import SecretUse as SecretUse
    from atoll.sdk import Workspace as Workspace
    from atoll.sdk import run as run
    from atoll.sdk import run_streamed as run_streamed

__version__ = "0.1.0"
_FROM_SDK = frozenset(
    {
        "Agent",
        "AsyncAgent",
        "AsyncSandbox",
        "AsyncSecrets",
        "AsyncWorkspace",
        "AtollError",
        "CloudRuntime",
        "LocalRuntime",
        "Result",
        "RunResult",
        "Sandbox",
        "SecretUse",
        "Secrets",
        "Workspace",
        "run",
        "run_streamed",
    }
)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM_SDK})


def __getattr__(name: str) -> Any:
    if name not in _FROM_SDK:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module("atoll.sdk"), name)
    globals()[name] = value
    return value
