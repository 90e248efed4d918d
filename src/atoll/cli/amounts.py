"""Amounts as people write them on a command line: 512m, 1.5g, 90s, 5m, NAME=VALUE; the commands' options use it.

A bare number is refused: nobody would know of what.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from atoll.cli.failure import MISUSED, Failed
from atoll.domain.workspace import MOUNT_POINT

if TYPE_CHECKING:
    from atoll.sdk import Mount, SecretUse

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def megabytes(text: str | None, option: str) -> int | None:
    """`512m`, `1.5g`, `64MiB` -> MiB."""
    found = bytes_of(text, option)
    if found is not None and found < 2**20:
        raise Failed(f"{option} must be 1m at least, not {text!r}", MISUSED)
    return None if found is None else round(found / 2**20)


def bytes_of(text: str | None, option: str) -> int | None:
    """`512m`, `1.5g`, `100000b` -> bytes."""
    if text is None:
        return None
    number, unit = _split(text)
    factor = 1 if unit == "b" else _BYTES.get(unit.removesuffix("b").removesuffix("i"))
    if factor is None:
        raise Failed(f"{option} must look like 512m or 2g, not {text!r}", MISUSED)
    return round(number * factor)


def seconds(text: str | None, option: str) -> float | None:
    """`90s`, `1.5m`, `200ms`, `30d` -> seconds."""
    if text is None:
        return None
    number, unit = _split(text)
    factor = _SECONDS.get(unit)
    if factor is None or number <= 0:
        raise Failed(f"{option} must look like 30s, 5m, 2h or 7d, not {text!r}", MISUSED)
    return number * factor


def environment(pairs: list[str]) -> dict[str, str]:
    """NAME=VALUE, or NAME alone for the value that it has here."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name:
            raise Failed(f"--env must look like NAME=VALUE or NAME, not {pair!r}", MISUSED)
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def secrets(texts: list[str]) -> list[SecretUse] | None:
    """`NAME`, `NAME=VARIABLE`, `NAME=/run/secrets/FILE`, `broker:NAME` -> secrets for a process."""
    from atoll.sdk import SecretUse

    found: list[SecretUse] = []
    for text in texts:
        name, equals, target = text.removeprefix("broker:").partition("=")
        if not name or (equals and not target):
            raise Failed(f"--secret must look like NAME or NAME=VARIABLE, not {text!r}", MISUSED)
        if text.startswith("broker:"):
            found.append(SecretUse(name, "broker", target or None))
        elif target.startswith("/"):
            found.append(SecretUse(name, "file", path=target))
        else:
            found.append(SecretUse(name, env=target or None))
    return found or None


def mounts(texts: list[str]) -> list[Mount] | None:
    """`NAME`, `NAME:PATH`, `NAME:PATH:ro` -> mounts."""
    from atoll.sdk import Mount

    found: list[Mount] = []
    for text in texts:
        name, _, rest = text.partition(":")
        path, _, mode = rest.partition(":")
        if not name or mode not in ("", "ro", "rw") or (path and not path.startswith("/")):
            raise Failed(f"--workspace must look like NAME, NAME:/PATH or NAME:/PATH:ro, not {text!r}", MISUSED)
        found.append(Mount(name, path or MOUNT_POINT, mode == "ro"))
    return found or None


def _split(text: str) -> tuple[float, str]:
    """The number and its unit; an empty unit, which nothing is measured in, for what has none."""
    found = _AMOUNT.fullmatch(text.strip().lower())
    return (float(found[1]), found[2]) if found else (0.0, "")
