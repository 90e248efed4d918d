"""gsutil as it is published, for tests: the program, and its settings for a door at port 80 of its machine.

It is taken from the environment's ATOLL_TEST_GSUTIL or the path; where there is none, pip installs it once into a
folder of the user's cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

VERSION = "5.38"
INSTALL_S = 300


@pytest.fixture(scope="session")
def gsutil() -> Path:
    """The program; the test is skipped, with the reason, where it can be had in no way."""
    given = os.environ.get("ATOLL_TEST_GSUTIL") or shutil.which("gsutil")
    if given:
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atoll-tests"
    folder = cache / f"gsutil-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    program = folder / "bin" / "gsutil"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        making = cache / f"making-{os.getpid()}"
        try:
            venv.create(making, with_pip=True)
            command = [str(making / "bin" / "python"), "-m", "pip", "install", "-q", f"gsutil=={VERSION}"]
            made = subprocess.run(command, capture_output=True, timeout=INSTALL_S, text=True, check=False)
            if made.returncode:
                pytest.skip(f"gsutil {VERSION} cannot be installed: {made.stderr[-300:]}")
            _move(making, folder)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"gsutil {VERSION} cannot be installed: {error}")
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return program


def _move(making: Path, folder: Path) -> None:
    """Where it is found the next time; its programs name the folder that they were installed in."""
    for script in (making / "bin").iterdir():
        if script.is_file() and not script.is_symlink() and (text := script.read_bytes()).startswith(b"#!"):
            script.write_bytes(text.replace(bytes(making), bytes(folder), 1))
    try:
        making.rename(folder)
    except OSError:
        if not folder.exists():  # else another worker was faster
            raise


def settle(home: Path, access: str, secret: str) -> dict[str, str]:
    """The environment in which it finds its settings."""
    home.mkdir()
    (home / ".boto").write_text(
        f"[Credentials]\ngs_access_key_id = {access}\ngs_secret_access_key = {secret}\n"
        "gs_host = 127.0.0.1\n[Boto]\nis_secure = False\nhttps_validate_certificates = False\nnum_retries = 1\n"
        f"[GSUtil]\nprefer_api = xml\nstate_dir = {home / 'state'}\n"
    )
    return {"HOME": str(home), "BOTO_CONFIG": str(home / ".boto")}
