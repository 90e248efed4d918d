"""Backup format: what the parts of a backup are called, and its manifest and list of objects as bytes and back."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from atoll.domain.errors import Corrupt
from atoll.services.recovery.verified_copying import Contents

FOLDER = "backups"
COPIED = "lineages/"  # where the objects lie that a backup needs
VERSION = 2
MOMENT = "%Y%m%dT%H%M%SZ"
LINES_AT_ONCE = 10_000
RECORDS, OBJECTS, INNER = "records", "objects", "inner"

Inventory = dict[str, Contents]  # the objects that a backup needs, by key


async def inventory_lines(inventory: Inventory) -> AsyncGenerator[bytes]:
    """A line of JSON for each object: its key, its bytes, its hash."""
    lines: list[str] = []
    for key in sorted(inventory):
        lines.append(json.dumps([key, inventory[key].bytes, inventory[key].sha256], separators=(",", ":")) + "\n")
        if len(lines) == LINES_AT_ONCE:
            yield "".join(lines).encode()
            lines.clear()
    yield "".join(lines).encode()


def read_inventory(text: bytes, moment: str) -> Inventory:
    """What `inventory_lines` wrote. Corrupt."""
    try:
        rows = [json.loads(line) for line in text.splitlines()]
        return {str(key): Contents(int(size), str(sha256)) for key, size, sha256 in rows}
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise Corrupt(f"the list of objects of backup {moment} is damaged") from None


def key_context(moment: str) -> str:
    return f"backup {moment}"


def read_manifest(data: bytes, moment: str) -> tuple[str, bytes, bytes]:
    """(the vault's name, the wrapped key, the sealed part). Corrupt."""
    try:
        value: Any = json.loads(data)
        if value["version"] == VERSION and value["moment"] == moment:
            wrapped, sealed = (base64.b64decode(value[name], validate=True) for name in ("key", "sealed"))
            return str(value["vault"]), wrapped, sealed
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise Corrupt(f"the manifest of backup {moment} is damaged or of another version")


def moment_at(moment: str) -> datetime:
    """When a backup was made, to the second; long ago for a name that is none of ours."""
    try:
        return datetime.strptime(moment.partition("_")[0], MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def moment_order(moment: str) -> tuple[str, int]:
    stem, _, number = moment.partition("_")
    return stem, int(number or 1) if number.isdecimal() or not number else 0
