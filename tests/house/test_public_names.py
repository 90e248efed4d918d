"""The names that other people's programs import; changing one of these lists is changing the public API."""

from __future__ import annotations

import atoll
import atoll.sdk


def test_the_package_offers_these_names() -> None:
    for name in ("AsyncSandbox", "AtollError", "Result", "Sandbox", "__version__"):
        assert getattr(atoll, name) is not None


def test_the_sdk_offers_exactly_these_names() -> None:
    assert sorted(atoll.sdk.__all__) == [
        "AsyncFiles",
        "AsyncProcess",
        "AsyncSandbox",
        "AtollError",
        "Chunk",
        "CommandFailed",
        "Conflict",
        "ConnectionFailed",
        "DeadlineExceeded",
        "Exit",
        "FileEntry",
        "Files",
        "Forbidden",
        "Internal",
        "InvalidInput",
        "NotFound",
        "PortAddress",
        "Process",
        "ProcessInfo",
        "QuotaExceeded",
        "RateLimited",
        "Result",
        "Sandbox",
        "SandboxInfo",
        "TemplateInfo",
        "TooLarge",
        "Unauthenticated",
        "Unavailable",
        "Unsupported",
        "Usage",
    ]
    for name in atoll.sdk.__all__:
        assert getattr(atoll.sdk, name).__name__ == name
