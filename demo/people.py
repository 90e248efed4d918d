"""The demo's scene of people: a user who logs in, a secret of theirs in a process, the audit trail that tells of it."""

from __future__ import annotations

import json
import secrets
import subprocess
import urllib.request
from typing import Any

from rich.markup import escape
from rich.panel import Panel

from atoll import Sandbox, Secrets
from bench.server import ATOLL, Server
from demo.steps import Steps

NAME = "API_TOKEN"
ANSWER_S = 10.0
VERIFY_S = 60


def people(steps: Steps, up: Server) -> tuple[str, str]:
    """Who may do what, and who did. The user's id, and their token."""
    password, value = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    with steps.step("make a user, and log in as them"):
        call(up.url + "/api/users", up.api_key, {"username": "ann", "password": password})
        token = call(up.url + "/auth/login", None, {"username": "ann", "password": password})["access_token"]
    with steps.step("keep a secret of theirs, and give it to a process"):
        Secrets(api_key=token).set(NAME, value)
        with Sandbox.create(api_key=token, secrets=[NAME]) as sandbox:
            said = sandbox.run(f"echo ${{#{NAME}}} characters in the process", check=True).stdout.strip()
    listed = [one.name for one in Secrets(api_key=token).list()]
    if said != f"{len(value)} characters in the process" or listed != [NAME]:
        raise RuntimeError(f"the secret did not get there: {said!r}, {listed}")
    with steps.step("prove that no event of all this was changed: atoll audit verify"):
        proved = atoll("audit", "verify")
    user = str(call(up.url + "/auth/me", token)["id"])
    logged = json.loads(atoll("audit", "log", "--actor", user, "--json"))
    events = "".join(f"{one['action']:<18} {one['target']:<36} {one['outcome']}\n" for one in logged)
    if value in proved + events:
        raise RuntimeError("the secret's value is in the audit trail")
    text = f"{said}; names are listed, values never: {listed}\n\n{events}\n{proved}"
    steps.console.print(Panel(escape(text.strip()), title="what the user did", expand=False))
    return user, token


def call(url: str, credential: str | None, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer to a request, a POST where there is a body."""
    headers = {"content-type": "application/json"}
    if credential is not None:
        headers["authorization"] = f"Bearer {credential}"
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
        return dict(json.load(answer))


def atoll(*words: str) -> str:
    """What a command prints, in the data folder of the demo's server."""
    done = subprocess.run([ATOLL, *words], capture_output=True, text=True, timeout=VERIFY_S)
    if done.returncode:
        raise RuntimeError(f"`atoll {' '.join(words)}` failed:\n{done.stdout}{done.stderr}")
    return done.stdout
