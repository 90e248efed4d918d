"""A real, certified OpenID provider for tests: oidc-provider from npm, installed once into build/, started on loopback.

`Login` goes through its pages as a browser would.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

HERE = Path(__file__).parent / "oidc_provider"
INSTALLED = Path(__file__).parents[2] / "build" / "oidc-provider"
INSTALL_S, START_S = 150, 30
AUDIENCE = "https://atoll.example/api"
REDIRECT = "http://127.0.0.1/callback"


def installed_or_skip() -> Path:
    """The folder that holds the package; several workers install it once."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no node and npm here: the OpenID provider of these tests comes from npm")
    INSTALLED.mkdir(parents=True, exist_ok=True)
    wanted, done = (HERE / "package.json").read_text(), INSTALLED / "installed.json"
    with open(INSTALLED / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and done.read_text() == wanted:
            return INSTALLED
        (INSTALLED / "package.json").write_text(wanted)
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        try:
            made = subprocess.run(
                command, cwd=INSTALLED, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S
            )
        except subprocess.TimeoutExpired:
            pytest.skip("npm could not install oidc-provider in time")
        if made.returncode:
            pytest.skip(f"npm could not install oidc-provider: {made.stderr.strip()[-200:]}")
        done.write_text(wanted)
    return INSTALLED


class RealProvider:
    """One that runs; it ends with this process, or at `stop`."""

    def __init__(self, modules: Path) -> None:
        self._process = subprocess.Popen(
            ["node", str(HERE / "provider.mjs")],
            env={"MODULES": str(modules), "PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError("the provider ended before it listened")
        self.issuer = f"http://127.0.0.1:{json.loads(line)['port']}"

    def stop(self) -> None:
        """A second call does nothing."""
        self._process.kill()
        self._process.communicate()

    def rotate(self) -> None:
        """From now on it signs with another key, and publishes that alone."""
        httpx2.post(f"{self.issuer}/control/rotate").raise_for_status()

    def keys(self) -> list[dict[str, Any]]:
        return httpx2.get(f"{self.issuer}/jwks").raise_for_status().json()["keys"]

    def token(self, client: str = "service", audience: str = AUDIENCE) -> str:
        """An access token of a program, by client_credentials."""
        form = {"grant_type": "client_credentials", "resource": audience, "scope": "read"}
        return self.exchange(form, auth=(client, "service-secret"))["access_token"]

    def exchange(self, form: dict[str, str], auth: tuple[str, str] | None = None) -> dict[str, Any]:
        answer = httpx2.post(f"{self.issuer}/token", data=form, auth=auth)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def login(self, username: str) -> dict[str, Any]:
        """The tokens of a person who logs in and consents: authorisation code with PKCE S256."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": "console",
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "scope": "openid offline_access read",
            "resource": AUDIENCE,
            "prompt": "consent",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": "state",
        }
        with httpx2.Client(base_url=self.issuer) as browser:
            code = _walk(browser, browser.get("/auth", params=asked), username)
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "client_id": "console"}
        return self.exchange(form | {"code_verifier": verifier, "resource": AUDIENCE})


def _walk(browser: httpx2.Client, page: httpx2.Response, username: str) -> str:
    """Through the provider's pages to the code at the redirect."""
    for _ in range(12):
        if page.is_redirect:
            target = page.headers["location"]
            if target.startswith(REDIRECT):
                answered = parse_qs(urlsplit(target).query)
                assert answered.get("state") == ["state"], answered
                return answered["code"][0]
            page = browser.get(target)
            continue
        assert page.status_code == 200, page.text
        form = re.search(r'action="([^"]+)"', page.text)
        prompt = re.search(r'name="prompt" value="(\w+)"', page.text)
        assert form and prompt, page.text
        page = browser.post(form[1], data={"prompt": prompt[1], "login": username, "password": "any"})
    raise AssertionError("no code after a dozen pages")


@contextmanager
def running() -> Iterator[RealProvider]:
    """One of one's own, for tests that stop it."""
    provider = RealProvider(installed_or_skip())
    try:
        yield provider
    finally:
        provider.stop()


@pytest.fixture(scope="module")
def provider() -> Iterator[RealProvider]:
    with running() as one:
        yield one
