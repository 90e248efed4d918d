"""The model gateway: what it adds to a model's first word, and to each word after, for a program inside a sandbox.

The same client asks the stand-in directly, on the host, and through the gateway from a sandbox with no network; rounds
of the two alternate. Each word is the time at which the stand-in said it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from atoll.app import Application, create_app
from atoll.domain.errors import AtollError
from atoll.domain.key import DEFAULT_SCOPES, KeyKind
from atoll.domain.ledger import Payer
from atoll.domain.price import TokenUse
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from atoll.runtimes.local.runtime import LocalRuntime
from atoll.settings import Settings
from atoll.settings.models import ModelSettings, OpenAiSettings
from atoll.sidekick.gates import MODEL_PORT
from bench.figures import Report

ROOT = Path(__file__).parents[1]
WORDS, PAUSE_S, CALLS, ROUNDS = 20, 0.002, 5, 8
OPERATOR = Principal("key_0123456789ab", KeyKind.OWNER, DEFAULT_SCOPES, "bench")
CLIENT = """
import http.client, json, socket, sys, time
port, calls, body = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
connection.connect()
connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else head and body wait for each other
found = []
for call in range(calls + 1):  # the first opens connections
    began = time.monotonic()
    connection.request("POST", "/v1/responses", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    first, late = None, []
    while line := answer.readline():
        if b"output_text.delta" in line and line.startswith(b"data"):
            now = time.monotonic()
            first = now - began if first is None else first
            late.append(now - float(json.loads(line[5:])["delta"]))
    answer.read()
    if call:
        found.append([first, late])
print(json.dumps(found))
"""


class Payers:
    """One task, whose calls are paid."""

    async def payer(self, task_id: str) -> Payer | None:
        return Payer(OPERATOR.id, task=task_id)

    def used(self, task_id: str, tokens: TokenUse, cost: int) -> None:
        return

    def dry(self, task_id: str, error: AtollError) -> None:
        return

    def hung(self, task_id: str, message: str) -> None:
        return


def models(report: Report, rounds: int = ROUNDS) -> None:
    """On SQLite, with the hold and the charge of each call."""
    command = [sys.executable, "-m", "atoll.testing.model_stand_in"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as stand_in:
        try:
            assert stand_in.stdout is not None
            url = stand_in.stdout.readline().partition("OpenAI: ")[2].strip().rstrip(")")
            with tempfile.TemporaryDirectory(prefix="atoll-bench-") as folder:
                direct, through = asyncio.run(_measured(Path(folder), url, rounds))
        finally:
            stand_in.terminate()
    first = [_median([one[0] for one in side]) * 1e3 for side in (direct, through)]
    later = [_median([word for one in side for word in one[1][1:]]) * 1e3 for side in (direct, through)]
    report.value("models.first.direct", "model: first word, asked directly", first[0], "ms")
    report.value("models.first", "model: what the gateway adds to it", first[1] - first[0], "ms", goal="<= 3 ms")
    report.value("models.word", "model: what it adds to a later word", later[1] - later[0], "ms", goal="<= 3 ms")


async def _measured(folder: Path, url: str, rounds: int) -> tuple[list[list], list[list]]:
    settings = Settings(data=folder, models=ModelSettings(openai=OpenAiSettings(base_url=url)))
    runtime = LocalRuntime(folder)
    application = create_app(settings, runtime=runtime)
    script = f"clock: {WORDS}\nslow: {PAUSE_S}\nusage: input=10 output={WORDS}"
    body = json.dumps({"model": "m", "input": script, "stream": True, "max_output_tokens": 1000})
    port = url.rpartition(":")[2].partition("/")[0]
    direct: list[list] = []
    through: list[list] = []
    try:
        async with application.running():
            application.model_calls.tasks = Payers()
            await application.ledger.credit(OPERATOR, OPERATOR.id, 10**9)
            sandbox = await application.sandboxes.create(OPERATOR, SandboxSpec(task="task_bench"))
            for _ in range(rounds):
                direct += await _outside(port, body)
                through += await _inside(application, sandbox.id, body)
    finally:
        await runtime.shutdown()
    return direct, through


async def _outside(port: str, body: str) -> list[list]:
    argv = ["-c", CLIENT, port, str(CALLS), body]
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=subprocess.PIPE, env=dict(os.environ))
    out, _ = await process.communicate()
    return json.loads(out)


async def _inside(application: Application, sandbox_id: str, body: str) -> list[list]:
    argv = ("python3", "-c", CLIENT, str(MODEL_PORT), str(CALLS), body)
    result = await application.sandboxes.processes.run(OPERATOR, sandbox_id, ProcessSpec(argv, timeout_s=60))
    if result.exit.code:
        raise RuntimeError(result.stderr.decode())
    return json.loads(result.stdout)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
