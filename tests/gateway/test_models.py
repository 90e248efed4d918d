"""The model gateway: what programs of a task get, what reaches the provider, and what is charged."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from atoll.domain.errors import Unavailable
from atoll.domain.ledger import Hold, HoldState, InsufficientCredit, Payer, Settled, Use
from atoll.domain.price import TokenUse
from atoll.gateway import models
from atoll.services.models import settling
from atoll.services.models.limits import ModelLimits
from tests.gateway.models import ACCOUNT, REAL_KEY, TASK, Purse, gateway, settled

USAGE = "usage: input=6548 output=108 cached=40 reasoning=8"
EXACTLY = TokenUse(6548, 108, 40, 8)
PATHS = ("/v1/responses", "/v1/chat/completions", "/v1/messages")


def asked(path: str, script: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "stream": stream}
    if path.endswith("responses"):
        body["input"] = script
    else:
        body["messages"] = [{"role": "user", "content": script}]
        if "messages" in path:
            body["max_tokens"] = 1000
    return body | more


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_is_answered_and_charged_as_the_provider_told(path: str, stream: bool):
    async with gateway() as world:
        answer = await world.client.post(path, json=asked(path, f"say: hello there\n{USAGE}", stream=stream))
        assert answer.status_code == 200, answer.text
        assert "hello" in answer.text
        assert world.used == [EXACTLY] if path != "/v1/messages" else [TokenUse(6548, 108, 40, 0)]
        (use,) = world.purse.uses
        assert (use.cost.total, use.task, use.account) == (103_080, TASK, ACCOUNT)
        assert [hold.state for hold in world.purse.holds.values()] == [HoldState.POSTED]
        assert world.side.told == [("used", TASK, use.tokens, 103_080)]


@pytest.mark.parametrize("path", PATHS)
async def test_no_credential_of_the_program_goes_on_and_the_real_one_is_put_in(path: str):
    named = {"Authorization": "Bearer canary-1", "x-api-key": "canary-2", "Cookie": "a=canary-3", "x-other": "canary-4"}
    async with gateway() as world:
        answer = await world.client.post(f"{path}?key=canary-5", json=asked(path, "hi"), headers=named)
        assert answer.status_code == 200
        (request,) = world.model.log
        assert "canary" not in request
        assert REAL_KEY in (request.header.get("x-api-key"), request.header.get("authorization", "")[7:])
        assert REAL_KEY not in answer.text + str(answer.headers)


async def test_whoever_has_no_task_that_runs_gets_nothing():
    async with gateway() as world:
        world.side.payers.clear()
        answer = await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "task_over")
        assert not world.model.log


async def test_a_websocket_is_told_to_come_over_http_at_once():
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    async with gateway() as world:
        answer = await world.client.get("/v1/responses", headers=upgrade)
        assert (answer.status_code, answer.json()["error"]["code"]) == (426, "upgrade_required")
        assert not world.model.log


async def test_what_is_not_served_is_unknown_in_the_providers_form():
    async with gateway() as world:
        for method, path in (("POST", "/v1/embeddings"), ("GET", "/"), ("GET", "/v1/files"), ("GET", "/v1/messages")):
            answer = await world.client.request(method, path)
            assert answer.status_code == 404 and answer.json()["error"]["message"], path
        assert answer.json()["type"] == "error"  # Anthropic's form, at Anthropic's path
        assert not world.model.log


async def test_b01_what_cannot_be_held_is_not_asked_and_ends_the_task():
    async with gateway(purse=Purse(balance=1_000)) as world:
        openai = await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))
        anthropic = await world.client.post("/v1/messages", json=asked("/v1/messages", "hi"))
        assert (openai.status_code, openai.json()["error"]["type"]) == (429, "insufficient_quota")
        assert (anthropic.status_code, anthropic.json()["error"]["type"]) == (402, "billing_error")
        assert world.side.told == [("dry", TASK, InsufficientCredit)] * 2
        assert not world.model.log and world.purse.balance == 1_000


async def test_without_a_bound_of_its_own_a_call_has_what_the_balance_pays():
    async with gateway(purse=Purse(balance=45 * 1_000)) as world:
        await world.client.post("/v1/responses", json=asked("/v1/responses", "say: a"))
        (request,) = world.model.log
        assert 900 < request.json["max_output_tokens"] < 1000
        assert request.json["store"] is False
    async with gateway() as world:
        await world.client.post("/v1/chat/completions", json=asked("/v1/chat/completions", "say: a"))
        assert world.model.log[0].json["max_tokens"] == 32_000


async def test_an_internal_task_is_metered_and_nothing_is_held():
    async with gateway(purse=Purse(balance=0)) as world:
        world.side.payers[TASK] = Payer(ACCOUNT, internal=True, task=TASK)
        answer = await world.client.post("/v1/responses", json=asked("/v1/responses", f"say: a\n{USAGE}"))
        assert answer.status_code == 200 and not world.purse.holds
        assert world.used == [EXACTLY] and world.purse.uses[0].internal


async def test_the_usage_of_a_chat_stream_is_asked_for_and_kept_from_who_did_not():
    path = "/v1/chat/completions"
    async with gateway() as world:
        plain = await world.client.post(path, json=asked(path, f"say: a b\n{USAGE}", stream=True))
        own = asked(path, f"say: a b\n{USAGE}", stream=True, stream_options={"include_usage": True})
        told = await world.client.post(path, json=own)
        assert world.used == [EXACTLY, EXACTLY]
        assert '"choices": []' not in plain.text and "6548" not in plain.text
        assert '"choices": []' in told.text and "6548" in told.text
        assert plain.text.endswith("data: [DONE]\n\n") and "\n\n\n" not in plain.text


async def test_models_and_counts_of_tokens_cost_nothing():
    async with gateway() as world:
        assert (await world.client.get("/v1/models")).json()["data"]
        counted = await world.client.post("/v1/messages/count_tokens", json=asked("/v1/messages", "hi"))
        assert counted.json()["input_tokens"] > 0
        assert not world.purse.holds and not world.purse.uses


@pytest.mark.parametrize(
    "script", ["say: one two three\nbreak", "say: one two three\nend", "say: one two\nusage: none"]
)
@pytest.mark.parametrize("path", PATHS)
async def test_b06_what_breaks_off_is_estimated_marked_and_charged_once(path: str, script: str):
    async with gateway() as world:
        await world.client.post(path, json=asked(path, script, stream=True))
        await settled(world)
        (tokens,) = world.used
        assert tokens.estimated and tokens.input > 0 and tokens.output > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_program_that_hangs_up_ends_the_call_and_pays_what_is_known(
    stream: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(models, "READ_ON_S", 1)
    async with gateway() as world:
        body = asked("/v1/messages", "usage: input=50 output=9\nsay: one two three\nhang", stream=stream)
        with pytest.raises(httpx2.ReadTimeout):
            await world.client.post("/v1/messages", json=body, timeout=0.5)
        await settled(world)
        async with asyncio.timeout(5):
            while stream and not world.model.left:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        if stream:
            (tokens,) = world.used
            assert tokens.estimated and tokens.input == 50 and 0 < tokens.output < 50
        else:
            assert not world.used  # it had not begun to answer
        assert not [told for told in world.side.told if told[0] == "hung"]


@pytest.mark.parametrize("script", ["silent", "say: one two three\nhang"])
async def test_a_model_that_hangs_ends_the_task_and_not_the_server(script: str):
    async with gateway(limits=ModelLimits(first_byte_s=0.3, between_s=0.3)) as world:
        answer = await world.client.post("/v1/responses", json=asked("/v1/responses", script, stream=True))
        await settled(world)
        assert ("hung", TASK) in world.side.told
        assert answer.status_code == (504 if script == "silent" else 200)
        assert "timeout" in answer.text
        assert len(world.used) == (0 if script == "silent" else 1)
        assert (await world.client.get("/v1/models")).status_code == 200


async def test_errors_of_the_provider_pass_with_their_time_and_without_the_key():
    async with gateway() as world:
        slow = await world.client.post("/v1/responses", json=asked("/v1/responses", "error: 429 slow down"))
        assert (slow.status_code, slow.headers["retry-after"]) == (429, "7")
        assert slow.json()["error"]["message"] == "slow down"
        leaky = await world.client.post("/v1/responses", json=asked("/v1/responses", "error: 500 x REAL").copy())
        assert leaky.status_code == 500
        refused = await world.client.post("/v1/messages", json=asked("/v1/messages", "error: 401 your key sk-x is bad"))
        assert refused.status_code == 503 and "sk-x" not in refused.text
        assert world.resolved() and not world.used and world.purse.balance == 10**9


async def test_without_a_provider_the_error_says_what_to_set():
    async with gateway(providers=[]) as world:
        openai = await world.client.post("/v1/responses", json=asked("/v1/responses", "hi"))
        anthropic = await world.client.post("/v1/messages", json=asked("/v1/messages", "hi"))
        assert openai.status_code == anthropic.status_code == 503
        assert "OPENAI_API_KEY" in openai.text and "ANTHROPIC_API_KEY" in anthropic.text
        assert not world.purse.holds


async def test_secrets_are_taken_out_of_what_a_provider_gets():
    secret = b'pa"ss\nword-one-two-three'
    shown = {"role": "user", "content": f"it printed {secret.decode()} and " + json.dumps({"x": secret.decode()})}
    key = "sk_" + "0123456789abcdef" * 4
    async with gateway(secrets=[secret]) as world:
        body = asked("/v1/chat/completions", "hi")
        body["messages"] += [shown, {"role": "user", "content": f"my key {key}, yours {REAL_KEY}"}]
        assert (await world.client.post("/v1/chat/completions", json=body)).status_code == 200
        (request,) = world.model.log
        assert b"word-one" not in request.body and key not in request and REAL_KEY.encode() not in request.body
        assert "withheld" in request


async def test_many_calls_of_one_task_wait_for_their_places():
    async with gateway(limits=ModelLimits(calls_per_task=2, queue_s=0.2)) as world:
        body = asked("/v1/responses", "wait: 0.6\nsay: a")
        answers = await asyncio.gather(*(world.client.post("/v1/responses", json=body) for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
        assert (await world.client.post("/v1/responses", json=asked("/v1/responses", "say: b"))).status_code == 200
        assert world.resolved()


async def test_a_call_waits_for_what_others_hold_rather_than_end_its_task():
    async with gateway(purse=Purse(balance=45 * 1_000)) as world:
        body = asked("/v1/responses", "wait: 0.3\nsay: a\nusage: input=10 output=10")
        answers = await asyncio.gather(*(world.client.post("/v1/responses", json=body) for _ in range(3)))
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert world.purse.balance == 45 * 1_000 - 3 * (150 + 450)
        assert not [told for told in world.side.told if told[0] == "dry"]
    async with gateway(purse=Purse(balance=45 * 1_000), limits=ModelLimits(queue_s=0.2)) as world:
        slow = asked("/v1/responses", "wait: 0.8\nsay: a")
        answers = await asyncio.gather(*(world.client.post("/v1/responses", json=slow) for _ in range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 429]
        assert "hold the credit" in answers[0].text + answers[1].text
        assert not [told for told in world.side.told if told[0] == "dry"]


async def test_how_calls_ended_is_counted():
    async with gateway(limits=ModelLimits(between_s=0.3)) as world:
        for script in ("say: a", "error: 500", "say: a\nhang", "say: a\nbreak"):
            await world.client.post("/v1/responses", json=asked("/v1/responses", script, stream=True))
        with pytest.raises(httpx2.ReadTimeout):
            slow = asked("/v1/responses", "wait: 5\nsay: a")
            await world.client.post("/v1/responses", json=slow, timeout=0.1)
        await settled(world)
        count = world.metrics.registry.get_sample_value
        ends = {
            name: count("model_calls_total", {"provider": "openai", "outcome": name})
            for name in ("answered", "refused", "silent", "broken", "left")
        }
        assert set(ends.values()) == {1.0}, ends
        assert count("model_calls_estimated_total") == 2


class Away(Purse):
    """Its database is away for the first settlements."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.tried: list[str] = []

    async def settle(self, hold: Hold | None, use: Use) -> Settled | None:
        self.tried.append(use.id)
        if len(self.tried) <= self.times:
            raise Unavailable("the database is away")
        return await super().settle(hold, use)


async def test_b10_a_store_that_is_away_for_a_moment_loses_no_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settling, "RETRIES_S", (0.01, 0.01, 0.01))
    purse = Away(3)
    async with gateway(purse=purse) as world:
        await world.client.post("/v1/responses", json=asked("/v1/responses", f"say: a\n{USAGE}"))
        await settled(world)
        assert len(purse.tried) == 4 and len(set(purse.tried)) == 1  # the same use each time
        assert world.used == [EXACTLY] and purse.balance == 10**9 - 103_080
    gone = Away(99)
    async with gateway(purse=gone) as world:
        answer = await world.client.post("/v1/responses", json=asked("/v1/responses", "say: a"))
        assert answer.status_code == 200 and not world.used and len(gone.tried) == 4  # its hold will expire
