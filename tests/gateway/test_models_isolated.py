"""The model gateway with a real sandbox: a task's programs reach their model with no network and no key."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.app import Application, create_app
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.ledger import Payer
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import Grant, Sandbox, SandboxSpec
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
CURL = ("curl", "-sS", "-m", "20", "-H", "Authorization: Bearer canary", "-d")


async def curl(application: Application, sandbox: Sandbox, path: str, body: object) -> str:
    command = (*CURL, json.dumps(body), f"http://127.0.0.1:{MODEL_PORT}{path}")
    result = await application.sandboxes.processes.run(OPERATOR, sandbox.id, ProcessSpec(command))
    return result.stdout.decode() + result.stderr.decode()


async def test_a_task_reaches_its_model_without_a_network_and_others_do_not(tmp_path: Path):
    async with ModelStandIn(key=REAL_KEY) as model:
        settings = Settings(
            data=tmp_path / "data",
            models=ModelSettings(
                openai=OpenAiSettings(api_key=REAL_KEY, base_url=f"{model.url}/v1"),  # type: ignore[arg-type]
                anthropic=AnthropicSettings(api_key=REAL_KEY, base_url=model.url),  # type: ignore[arg-type]
            ),
        )
        application = create_app(settings)
        async with application.running():
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
