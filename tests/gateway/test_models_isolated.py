"""The model gateway with a real sandbox: a task's programs reach their model with no network and no key."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.app import Application, create_app
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.ledger import Payer
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import Grant, Sandbox, SandboxSpec
from atoll.domain.secret import SecretUse
from atoll.runtimes.local.runtime import LocalRuntime
from atoll.settings import Settings
from atoll.settings.models import AnthropicSettings, ModelSettings, OpenAiSettings
from atoll.sidekick.gates import MODEL_PORT
from atoll.testing.model_stand_in import ModelStandIn
from tests.gateway.models import REAL_KEY, Side

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root"),
]
ALICE = Principal("key_a11ce0000000", KeyKind.STANDARD, DEFAULT_SCOPES, "alice")
OPERATOR = replace(ALICE, kind=KeyKind.OWNER)
BODY = {"model": "m", "input": "say: from outside\nusage: input=10 output=2", "stream": True}
MESSAGE = {
    "model": "m",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "say: and another\nusage: input=10 output=2"}],
}
FLOOD = """
import socket, sys, time
held = []
for _ in range(300):
    sock = socket.socket()
    sock.settimeout(0.05)
    try:
        sock.connect(("127.0.0.1", int(sys.argv[1])))
        sock.sendall(b"POST /v1/responses HTTP/1.1\\r\\n")
        held.append(sock)
    except OSError:
        pass
print(len(held), flush=True)
time.sleep(60)
"""
CURL = ("curl", "-sS", "-m", "20", "-H", "Authorization: Bearer canary", "-d")


async def curl(application: Application, sandbox: Sandbox, path: str, body: object) -> str:
    command = (*CURL, json.dumps(body), f"http://127.0.0.1:{MODEL_PORT}{path}")
    result = await application.sandboxes.processes.run(OPERATOR, sandbox.id, ProcessSpec(command))
    return result.stdout.decode() + result.stderr.decode()


@pytest.fixture
async def model() -> AsyncIterator[ModelStandIn]:
    async with ModelStandIn(key=REAL_KEY) as made:
        yield made


@pytest.fixture
async def application(tmp_path: Path, model: ModelStandIn) -> AsyncIterator[Application]:
    """A server whose model is the stand-in; its sandboxes end with it."""
    openai = OpenAiSettings(api_key=REAL_KEY, base_url=f"{model.url}/v1")  # type: ignore[arg-type]
    anthropic = AnthropicSettings(api_key=REAL_KEY, base_url=model.url)  # type: ignore[arg-type]
    settings = Settings(data=tmp_path / "data", models=ModelSettings(openai=openai, anthropic=anthropic))
    made = create_app(settings, runtime=LocalRuntime(tmp_path / "data", spares=0))
    try:
        async with made.running():
            yield made
    finally:
        await made.runtime.shutdown()  # type: ignore[attr-defined]


async def test_a_task_reaches_its_model_without_a_network_and_others_do_not(
    application: Application, model: ModelStandIn
):
    side = Side({"task_1": Payer(ALICE.id, task="task_1")})
    application.model_calls.tasks = side
    await application.ledger.credit(OPERATOR, ALICE.id, 10_000_000)
    task = await application.sandboxes.create(OPERATOR, SandboxSpec(task="task_1"))
    answer = await curl(application, task, "/v1/responses", BODY)
    assert "outside" in answer and "response.completed" in answer, answer
    whole = await curl(application, task, "/v1/messages", MESSAGE)
    assert json.loads(whole)["content"][0]["text"] == "and another"
    account = await application.ledger.account(ALICE.id)
    assert (account.balance, account.held) == (10_000_000 - 2 * (150 + 90), 0)
    assert [told[0] for told in side.told] == ["used", "used"]
    assert len(model.log) == 2 and not any("canary" in request for request in model.log)
    for spec in (SandboxSpec(), SandboxSpec(capability=Grant(frozenset({Scope.READ})))):
        other = await application.sandboxes.create(OPERATOR, spec)
        assert "Couldn't connect" in await curl(application, other, "/v1/responses", BODY)
    side.payers.clear()
    assert "task_over" in await curl(application, task, "/v1/responses", BODY)
    assert len(model.log) == 2


async def test_r_hundreds_of_streams_of_one_task_leave_the_others_theirs(application: Application):
    payers = {name: Payer(OPERATOR.id, internal=True, task=name) for name in ("task_1", "task_2")}
    application.model_calls.tasks = Side(payers)
    first, second = [await application.sandboxes.create(OPERATOR, SandboxSpec(task=name)) for name in payers]
    flood = ProcessSpec(("python3", "-c", FLOOD, str(MODEL_PORT)))
    flooding = await application.sandboxes.processes.start(OPERATOR, first.id, flood)
    try:
        _, held = await anext(aiter(flooding))
        assert int(held) > 200
        assert "outside" in await curl(application, second, "/v1/responses", BODY)
    finally:
        await flooding.close()
    await application.sandboxes.kill(OPERATOR, first.id)
    assert "outside" in await curl(application, second, "/v1/responses", BODY)


async def test_secrets_of_a_sandbox_are_known_to_its_gateway_and_those_that_are_gone_are_not(application: Application):
    await application.secrets.create(OPERATOR, "TOKEN", b"canary-of-the-tenant")
    await application.secrets.create(OPERATOR, "GONE", b"another-canary-value")
    uses = (SecretUse("TOKEN"), SecretUse("GONE"))
    made = await application.sandboxes.create(OPERATOR, SandboxSpec(task="task_1", secrets=uses))
    assert set(await application.giving.values(made)) == {b"canary-of-the-tenant", b"another-canary-value"}
    await application.secrets.delete(OPERATOR, "GONE")
    assert await application.giving.values(made) == (b"canary-of-the-tenant",)


async def test_a16_a_secret_that_a_program_prints_reaches_no_provider(application: Application, model: ModelStandIn):
    application.model_calls.tasks = Side({"task_1": Payer(OPERATOR.id, internal=True, task="task_1")})
    await application.secrets.create(OPERATOR, "TOKEN", b"canary-of-the-tenant")
    made = await application.sandboxes.create(OPERATOR, SandboxSpec(task="task_1", secrets=(SecretUse("TOKEN"),)))
    told = """curl -sS -m 20 http://127.0.0.1:982/v1/responses -d '{"model": "m", "input": "'"$TOKEN"'"}'"""
    result = await application.sandboxes.processes.run(OPERATOR, made.id, ProcessSpec(("sh", "-c", told)))
    assert b"withheld" in result.stdout, result
    assert len(model.log) == 1 and "canary" not in model.log[0]
