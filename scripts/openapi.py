"""Writes specs/openapi.yaml, the document of everything that a server can serve: `make openapi` after a change of it.

The test of drift compares that file with what the application serves.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from atoll.app import Application
from atoll.settings import Settings
from atoll.surfaces.openapi import yaml
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault

FILE = Path(__file__).parents[1] / "specs" / "openapi.yaml"
# What is off by default and adds routes.
EVERYTHING = {"accounts": {"waitlist": True}, "auth": {"registration": True}}
HEAD = "# Written by `make openapi`; a test holds it to what is served.\n"


def application(folder: str) -> Application:
    """One that serves everything and never runs."""
    settings = Settings.model_validate({"data": folder, "runtime": "fake", "server": {"port": 0}} | EVERYTHING)
    return Application(settings, MemoryRecords(), FakeRuntime(FakeHost()), None, MemoryBlobs(), MemoryVault())


def document() -> dict[str, Any]:
    """In an order that does not change from run to run."""
    with tempfile.TemporaryDirectory() as folder:
        found = application(folder).openapi()
    schemas = found["components"]["schemas"]
    found["components"]["schemas"] = {name: schemas[name] for name in sorted(schemas)}
    found["paths"] = {path: found["paths"][path] for path in sorted(found["paths"])}
    return found


def main() -> None:
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(HEAD + yaml(document()))
    print(f"{FILE} is written", file=sys.stderr)


if __name__ == "__main__":
    main()
