"""The Python client: `Sandbox` waits, `AsyncSandbox` awaits, and both are the same program; the CLI is made of it.

Names load when they are first used, so that `import atoll` costs nothing where nobody needs a client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.domain.errors import (
        AtollError,
        Conflict,
        Corrupt,
        DeadlineExceeded,
        Forbidden,
        Internal,
        InvalidInput,
        NotFound,
        QuotaExceeded,
        RateLimited,
        TooLarge,
        Unauthenticated,
        Unavailable,
        Unsupported,
    )
    from atoll.domain.process import Exit, FileEntry, ProcessInfo
    from atoll.domain.sandbox import Usage
    from atoll.domain.task import McpServer
    from atoll.sdk._async.agents import AsyncAgent, AsyncRunStream
    from atoll.sdk._async.files import AsyncFiles
    from atoll.sdk._async.marketplace import AsyncMarketplace
    from atoll.sdk._async.process import AsyncProcess
    from atoll.sdk._async.sandbox import AsyncSandbox
    from atoll.sdk._async.secrets import AsyncSecrets
    from atoll.sdk._async.tasks import AsyncTasks
    from atoll.sdk._async.workspace import AsyncWorkspace
    from atoll.sdk._sync.agents import Agent, RunStream
    from atoll.sdk._sync.files import Files
    from atoll.sdk._sync.marketplace import Marketplace
    from atoll.sdk._sync.process import Process
    from atoll.sdk._sync.sandbox import Sandbox
    from atoll.sdk._sync.secrets import Secrets
    from atoll.sdk._sync.tasks import Tasks
    from atoll.sdk._sync.workspace import Workspace
    from atoll.sdk.errors import CommandFailed, ConnectionFailed
    from atoll.sdk.local_runtime import LocalRuntime
    from atoll.sdk.running import run, run_streamed
    from atoll.sdk.runtimes import CloudRuntime
    from atoll.sdk.secret_values import SecretInfo, SecretUse
    from atoll.sdk.sync.values import (
        LeftOut,
        SyncConflict,
        SyncedPath,
        SyncOptions,
        SyncProgress,
        SyncReport,
    )
    from atoll.sdk.task_errors import (
        BudgetExceeded,
        InsufficientCredit,
        NoModelKey,
        SpendingLimitExceeded,
        SyncFailed,
        TaskCancelled,
        TaskFailed,
        TaskTimedOut,
    )
    from atoll.sdk.task_values import Billing, RunEvent, RunResult, SessionInfo, TaskInfo, TaskUsage
    from atoll.sdk.values import Chunk, Mount, PortAddress, Result, SandboxInfo, TemplateInfo
    from atoll.sdk.worker_values import WorkerInfo, WorkerRun
    from atoll.sdk.workspace_values import (
        Damage,
        MergeConflictInfo,
        MergeResult,
        PathChange,
        RestoreResult,
        RevisionInfo,
        SnapshotInfo,
        TreeEntry,
        Verification,
        WorkspaceInfo,
    )

_ERRORS = (
    "AtollError Conflict Corrupt DeadlineExceeded Forbidden Internal InvalidInput NotFound QuotaExceeded RateLimited "
    "TooLarge Unauthenticated Unavailable Unsupported"
)
_HOMES = {
    "atoll.domain.errors": _ERRORS,
    "atoll.domain.process": "Exit FileEntry ProcessInfo",
    "atoll.domain.sandbox": "Usage",
    "atoll.domain.task": "McpServer",
    "atoll.sdk.errors": "CommandFailed ConnectionFailed",
    "atoll.sdk.local_runtime": "LocalRuntime",
    "atoll.sdk.running": "run run_streamed",
    "atoll.sdk.runtimes": "CloudRuntime",
    "atoll.sdk.task_errors": (
        "BudgetExceeded InsufficientCredit NoModelKey SpendingLimitExceeded SyncFailed TaskCancelled TaskFailed "
        "TaskTimedOut"
    ),
    "atoll.sdk.task_values": "Billing RunEvent RunResult SessionInfo TaskInfo TaskUsage",
    "atoll.sdk._async.agents": "AsyncAgent AsyncRunStream",
    "atoll.sdk._async.tasks": "AsyncTasks",
    "atoll.sdk._sync.agents": "Agent RunStream",
    "atoll.sdk._sync.tasks": "Tasks",
    "atoll.sdk.secret_values": "SecretInfo SecretUse",
    "atoll.sdk.values": "Chunk Mount PortAddress Result SandboxInfo TemplateInfo",
    "atoll.sdk._async.files": "AsyncFiles",
    "atoll.sdk._async.marketplace": "AsyncMarketplace",
    "atoll.sdk._async.process": "AsyncProcess",
    "atoll.sdk.sync.values": "LeftOut SyncConflict SyncedPath SyncOptions SyncProgress SyncReport",
    "atoll.sdk.worker_values": "WorkerInfo WorkerRun",
    "atoll.sdk.workspace_values": (
        "Damage MergeConflictInfo MergeResult PathChange RestoreResult RevisionInfo SnapshotInfo TreeEntry "
        "Verification WorkspaceInfo"
    ),
    "atoll.sdk._async.sandbox": "AsyncSandbox",
    "atoll.sdk._async.secrets": "AsyncSecrets",
    "atoll.sdk._async.workspace": "AsyncWorkspace",
    "atoll.sdk._sync.files": "Files",
    "atoll.sdk._sync.marketplace": "Marketplace",
    "atoll.sdk._sync.process": "Process",
    "atoll.sdk._sync.sandbox": "Sandbox",
    "atoll.sdk._sync.secrets": "Secrets",
    "atoll.sdk._sync.workspace": "Workspace",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Agent",
    "AsyncAgent",
    "AsyncFiles",
    "AsyncMarketplace",
    "AsyncProcess",
    "AsyncRunStream",
    "AsyncSandbox",
    "AsyncSecrets",
    "AsyncTasks",
    "AsyncWorkspace",
    "AtollError",
    "Billing",
    "BudgetExceeded",
    "Chunk",
    "CloudRuntime",
    "CommandFailed",
    "Conflict",
    "ConnectionFailed",
    "Corrupt",
    "Damage",
    "DeadlineExceeded",
    "Exit",
    "FileEntry",
    "Files",
    "Forbidden",
    "InsufficientCredit",
    "Internal",
    "InvalidInput",
    "LeftOut",
    "LocalRuntime",
    "Marketplace",
    "McpServer",
    "MergeConflictInfo",
    "MergeResult",
    "Mount",
    "NoModelKey",
    "NotFound",
    "PathChange",
    "PortAddress",
    "Process",
    "ProcessInfo",
    "QuotaExceeded",
    "RateLimited",
    "RestoreResult",
    "Result",
    "RevisionInfo",
    "RunEvent",
    "RunResult",
    "RunStream",
    "Sandbox",
    "SandboxInfo",
    "SecretInfo",
    "SecretUse",
    "Secrets",
    "SessionInfo",
    "SnapshotInfo",
    "SpendingLimitExceeded",
    "SyncConflict",
    "SyncFailed",
    "SyncOptions",
    "SyncProgress",
    "SyncReport",
    "SyncedPath",
    "TaskCancelled",
    "TaskFailed",
    "TaskInfo",
    "TaskTimedOut",
    "TaskUsage",
    "Tasks",
    "TemplateInfo",
    "TooLarge",
    "TreeEntry",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "Usage",
    "Verification",
    "WorkerInfo",
    "WorkerRun",
    "Workspace",
    "WorkspaceInfo",
    "run",
    "run_streamed",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
