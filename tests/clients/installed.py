"""Published clients that tests drive, unmodified, each installed once into build/; `.ci/run` calls `main` beforehand.

A test asks for what it needs and is skipped, with the reason, where the registries cannot be reached.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "build"
NPM_PACKAGES = Path(__file__).parent / "package.json"
INSTALL_S = 240
# The folder below build/ -> what pip installs into a virtual environment there.
PYTHON_CLIENTS = {
    "computesdk": ("computesdk==0.1.1", "websockets<14"),
    "openai-agents": ("openai-agents==0.24.0", "aiohttp"),
}


class NotInstalled(Exception):
    """It could not be: the message says why."""


def npm_clients() -> Path:
    """The folder whose node_modules hold the packages of package.json; skips the test where they cannot be had."""
    return _or_skip(_install_npm)


def python_client(name: str) -> Path:
    """The `python` of a client's own virtual environment; skips the test where it cannot be had."""
    return _or_skip(_install_python, name)


def _install_npm() -> Path:
    npm, folder, wanted = shutil.which("npm"), BUILD / "clients", NPM_PACKAGES.read_text()
    if npm is None or shutil.which("node") is None:
        raise NotInstalled("no node and npm here: these clients come from npm")
    with _Installing(folder, wanted) as installing:
        if not installing.done:
            (folder / "package.json").write_text(wanted)
            _run([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"], folder)
    return folder


def _install_python(name: str) -> Path:
    packages, folder = PYTHON_CLIENTS[name], BUILD / name
    with _Installing(folder, "\n".join(packages)) as installing:
        if not installing.done:
            _run([sys.executable, "-m", "venv", str(folder)], folder)
            _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile", *packages], folder)
    return folder / "bin" / "python"


class _Installing:
    """Several workers install a folder once: `done` says that it holds what is wanted already."""

    def __init__(self, folder: Path, wanted: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._mark, self._wanted = folder / "installed", wanted
        self._lock = open(folder / "lock", "w")  # noqa: SIM115 - closed on leaving

    def __enter__(self) -> _Installing:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.done = self._mark.exists() and self._mark.read_text() == self._wanted
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._mark.write_text(self._wanted)
        self._lock.close()


def _run(command: list[str], folder: Path) -> None:
    try:
        made = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{command[0]} took longer than {INSTALL_S} s") from None
    if made.returncode:
        raise NotInstalled(f"{Path(command[0]).name} failed: {made.stderr.strip()[-200:]}")


def _or_skip(install: Callable[..., Path], *names: str) -> Path:
    try:
        return install(*names)
    except NotInstalled as error:
        pytest.skip(f"a published client could not be installed: {error}")


def main() -> None:
    """Install them all; what cannot be is told, and its tests are skipped."""
    for install, names in ((_install_npm, ()), *((_install_python, (name,)) for name in PYTHON_CLIENTS)):
        try:
            print(install(*names))
        except NotInstalled as error:
            print(f"{' '.join(names) or 'npm'}: {error}: its tests are skipped")


if __name__ == "__main__":
    main()
