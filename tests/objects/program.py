"""gsutil as it is published, for tests: the program, and its settings for a door at port 80 of its machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

INSTALLED = Path(__file__).parents[2] / "build" / "gsutil" / "bin" / "gsutil"


@pytest.fixture(scope="session")
def gsutil() -> Path:
    """The environment's ATOLL_TEST_GSUTIL, what .ci/run installs, or the one on the path; else a test of it is
    skipped."""
    given = os.environ.get("ATOLL_TEST_GSUTIL") or (str(INSTALLED) if INSTALLED.exists() else shutil.which("gsutil"))
    if not given:
        pytest.skip(f"there is no gsutil in {INSTALLED.parent}: .ci/run installs it where the registries answer")
    return Path(given)


def settle(home: Path, access: str, secret: str) -> dict[str, str]:
    """The environment in which it finds its settings."""
    home.mkdir()
    (home / ".boto").write_text(
        f"[Credentials]\ngs_access_key_id = {access}\ngs_secret_access_key = {secret}\n"
        "gs_host = 127.0.0.1\n[Boto]\nis_secure = False\nhttps_validate_certificates = False\nnum_retries = 1\n"
        f"[GSUtil]\nprefer_api = xml\nstate_dir = {home / 'state'}\n"
    )
    return {"HOME": str(home), "BOTO_CONFIG": str(home / ".boto")}
