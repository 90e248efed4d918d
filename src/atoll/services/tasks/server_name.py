"""Server name: what a server claims tasks by; the same after a restart, so that it takes up its own at once."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

NAME = re.compile(r"^server_[0-9a-f]{24}$")


class ServerName:
    """Of one data folder: in a file, made by the first server that looks."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._name = ""

    def __call__(self) -> str:
        if not self._name:
            self._name = self._read() or self._made()
        return self._name

    def _read(self) -> str:
        try:
            found = self._file.read_text().strip()
        except FileNotFoundError:
            return ""
        return found if NAME.match(found) else ""

    def _made(self) -> str:
        name = f"server_{secrets.token_hex(12)}"
        with open(self._file, "w", opener=_private) as file:
            file.write(name + "\n")
        return name


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
