"""The last checkpoint that this server has made, in a file beside the database: without it nobody could tell that the
newest checkpoints were taken away together with the events that they sign.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Anchor:
    """A checkpoint that there must be."""

    number: int
    hash: bytes


def read_anchor(file: Path) -> Anchor | None:
    """None where no server has left one. ValueError for a file that is none."""
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("number"), int):  # pyright: ignore[reportUnknownMemberType]
        raise ValueError("it is no anchor")
    return Anchor(value["number"], bytes.fromhex(str(value["hash"])))  # pyright: ignore[reportUnknownArgumentType]


def write_anchor(file: Path, checkpoint: Checkpoint) -> None:
    """In one step, so that there is always a whole one."""
    partial = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as out:
            json.dump({"number": checkpoint.number, "hash": checkpoint.hash.hex()}, out)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
