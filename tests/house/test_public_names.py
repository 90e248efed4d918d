"""The names that other people's programs import; changing one of these lists is changing the public API."""

from __future__ import annotations

import atoll
import atoll.sdk


def test_the_package_offers_these_names() -> None:
    sandboxes = (
        "AsyncSandbox AsyncSecrets AsyncWorkspace AtollError Result Sandbox Secrets SecretUse Workspace __version__"
    )
    agents = "Agent AsyncAgent CloudRuntime LocalRuntime RunResult run run_streamed"
    for name in [*sandboxes.split(), *agents.split()]:
        assert getattr(atoll, name) is not None


def test_the_sdk_offers_exactly_these_names() -> None:
    assert sorted(atoll.sdk.__all__) == [
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
    for name in atoll.sdk.__all__:
        assert getattr(atoll.sdk, name).__name__ == name
