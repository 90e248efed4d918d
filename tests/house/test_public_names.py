"""The names that other people's programs import; changing one of these lists is changing the public API."""

from __future__ import annotations

import atoll
import atoll.sdk


def test_the_package_offers_these_names() -> None:
    names = "AsyncSandbox AsyncSecrets AsyncWorkspace AtollError Result Sandbox Secrets SecretUse Workspace __version__"
    for name in names.split():
        assert getattr(atoll, name) is not None


def test_the_sdk_offers_exactly_these_names() -> None:
    assert sorted(atoll.sdk.__all__) == [
        "AsyncFiles",
        "AsyncProcess",
        "AsyncSandbox",
        "AsyncSecrets",
        "AsyncWorkspace",
        "AtollError",
        "Chunk",
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
        "Internal",
        "InvalidInput",
        "LeftOut",
        "MergeConflictInfo",
        "MergeResult",
        "Mount",
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
        "Sandbox",
        "SandboxInfo",
        "SecretInfo",
        "SecretUse",
        "Secrets",
        "SnapshotInfo",
        "SyncConflict",
        "SyncOptions",
        "SyncProgress",
        "SyncReport",
        "SyncedPath",
        "TemplateInfo",
        "TooLarge",
        "TreeEntry",
        "Unauthenticated",
        "Unavailable",
        "Unsupported",
        "Usage",
        "Verification",
        "Workspace",
        "WorkspaceInfo",
    ]
    for name in atoll.sdk.__all__:
        assert getattr(atoll.sdk, name).__name__ == name
