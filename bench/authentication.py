"""What authentication adds to a request: the same refusal of a method, on a path for everybody and behind the door.

Rounds alternate between nobody, an API key and an access token on one connection, slowly enough for their rates.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import time
from urllib.parse import urlsplit

from bench.figures import Report
from bench.server import ATOLL, Server

WARM_UP = 10
PAUSE_S = 0.025  # a key has 50 requests a second
OPEN, CLOSED = "/health", "/v1/sessions"  # PUT is a wrong method on both: there is nothing to do but to let in
GOAL = "<= 0.3 ms"


def authentication(report: Report, up: Server, n: int) -> None:
    """Medians of each kind, and of what it adds to nobody's."""
    address = urlsplit(up.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        token = _login(connection)
        key = _post(connection, "/auth/api-keys", {"name": "bench"}, token)["key"]
        kinds: dict[str, tuple[str, str | None]] = {
            "nobody": (OPEN, None),
            "key": (CLOSED, key),
            "token": (CLOSED, token),
        }
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(WARM_UP + n):
            _wrong_method(connection, OPEN, None)  # the first one after a pause is slow, whoever asks
            for turn in range(len(kinds)):  # each comes first as often as the others
                kind = list(kinds)[(number + turn) % len(kinds)]
                taken = _wrong_method(connection, *kinds[kind])
                if number >= WARM_UP:
                    times[kind].append(taken)
            time.sleep(PAUSE_S)
    finally:
        connection.close()
    report.times("auth.nobody", "a request that needs no credential", times["nobody"])
    for kind, label in (("key", "an API key"), ("token", "an access token (JWT)")):
        report.times(f"auth.{kind}", f"... with {label}", times[kind], against="auth.nobody")
        # Within each round, so that what else the machine did is in both.
        adds = statistics.median(mine - nobodys for mine, nobodys in zip(times[kind], times["nobody"], strict=True))
        report.value(f"auth.{kind}.adds", f"... authentication by {label} adds", adds, "ms", goal=GOAL)


def _login(connection: http.client.HTTPConnection) -> str:
    made = subprocess.run(
        [ATOLL, "users", "create", "bench", "--generate", "--json"], capture_output=True, text=True, check=True
    )
    body = {"username": "bench", "password": json.loads(made.stdout)["password"]}
    return _post(connection, "/auth/login", body)["access_token"]


def _post(
    connection: http.client.HTTPConnection, path: str, body: dict[str, str], token: str | None = None
) -> dict[str, str]:
    headers = {"content-type": "application/json"} | ({} if token is None else {"authorization": f"Bearer {token}"})
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    if answer.status >= 300:
        raise RuntimeError(f"POST {path} answered {answer.status}: {said}")
    return said


def _wrong_method(connection: http.client.HTTPConnection, path: str, credential: str | None) -> float:
    """Milliseconds until the answer, which must be 405: the credential was good."""
    headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
    began = time.perf_counter()
    connection.request("PUT", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    taken = (time.perf_counter() - began) * 1e3
    if answer.status != 405:
        raise RuntimeError(f"PUT {path} answered {answer.status}")
    return taken
