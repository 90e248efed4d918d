"""Requests with an Idempotency-Key: one effect, one answer, whoever asks how often, crashes in between included."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from atoll.domain.errors import Unavailable
from atoll.domain.idempotency import IdempotentRequest, key_hash
from atoll.domain.sandbox import LIVE
from tests.surfaces.conftest import ALICE, BOB, READER, House, Opener

CREATE: dict[str, Any] = {"image": "host", "network": "none"}


async def create(house: House, key: str, who: str = ALICE, **body: Any) -> httpx2.Response:
    headers = {"idempotency-key": key}
    return await house.call("POST", "/v1/sessions", who, json=CREATE | body, headers=headers)


async def made(house: House) -> int:
    return len(await house.records.list_sandboxes(removed=None))


async def test_b03_the_same_key_and_body_have_one_effect_and_the_same_answer(house: House) -> None:
    first = await create(house, "k-1")
    again = await create(house, "k-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert await made(house) == 1


async def test_b03_every_dialect_that_makes_sandboxes_makes_one(house: House) -> None:
    made_by = (await house.call("POST", "/v1/sandboxes")).json()["data"]["sandboxId"]
    headers = {"idempotency-key": "k-1"}
    for path in ("/v1/sandboxes", f"/sb/{made_by}/sandboxes", "/v1/sandbox"):
        before = await made(house)
        first, again = [await house.call("POST", path, headers=headers) for _ in range(2)]
        assert first.is_success, first.text
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert await made(house) == before + 1
        headers = {"idempotency-key": headers["idempotency-key"] + "1"}


async def test_b03_the_same_key_with_another_request_is_refused(house: House) -> None:
    await create(house, "k-1")
    other = await create(house, "k-1", name="other")
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    session = (await house.call("GET", "/v1/sessions")).json()["sessions"][0]["id"]
    elsewhere = await house.call(
        "POST", f"/v1/sessions/{session}/exec", json={"command": ["true"]}, headers={"idempotency-key": "k-1"}
    )
    assert elsewhere.status_code == 422
    assert await made(house) == 1


async def test_b03_concurrent_requests_with_one_key_have_one_effect(house: House) -> None:
    answers = await asyncio.gather(*(create(house, "k-1") for _ in range(12)))
    statuses = {answer.status_code for answer in answers}
    assert 201 in statuses
    assert statuses <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 409)
    assert await made(house) == 1
    assert (await create(house, "k-1")).status_code == 201


async def test_b03_keys_are_each_principals_own(house: House) -> None:
    mine, theirs = await create(house, "k-1"), await create(house, "k-1", BOB)
    assert mine.json()["id"] != theirs.json()["id"]
    assert "idempotent-replayed" not in theirs.headers


async def test_b03_a_request_that_was_cut_short_is_never_made_a_second_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await create(house, "k-1")
    # what a server that died leaves: a key without an answer, of another life
    who, now = "key_a11ce0000000", datetime.now(UTC)
    [known] = house.records._idempotent.values()
    cut = IdempotentRequest(who, key_hash(who, "k-2"), known.fingerprint, "0" * 16, now)
    assert await house.records.begin_request(cut, forgotten=now) is None
    monkeypatch.setattr(house.app.once.idempotency, "server", "another life")
    replayed = await create(house, "k-1")
    assert (replayed.status_code, replayed.content) == (201, done.content), "an answer survives the server"
    refused = await create(house, "k-2")
    assert refused.status_code == 409
    assert "look whether it had its effect" in refused.json()["error"]
    assert await made(house) == 1


async def test_b03_a_key_is_forgotten_after_a_day(house: House) -> None:
    first = await create(house, "k-1")
    [(key, known)] = house.records._idempotent.items()
    house.records._idempotent[key] = _older(known, hours=24.1)
    second = await create(house, "k-1")
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    assert await house.records.prune_requests(datetime.now(UTC) + timedelta(hours=1)) == 1


def _older(known: IdempotentRequest, hours: float) -> IdempotentRequest:
    return replace(known, created_at=known.created_at - timedelta(hours=hours))


@pytest.mark.parametrize("body", [{"image": "nowhere"}, {"resources": {"memoryMB": 10**9}}, {"unknown": 1}])
async def test_a_request_that_was_refused_leaves_its_key_free(house: House, body: dict[str, Any]) -> None:
    refused = await create(house, "k-1", **body)
    assert refused.status_code == 400
    assert (await create(house, "k-1")).status_code == 201


async def test_what_was_refused_is_said_also_while_the_store_does_not_free_the_key(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: Any) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(house.records, "forget_request", down)
    refused = await create(house, "k-1", image="nowhere")
    assert (refused.status_code, "nowhere" in refused.text) == (400, True), refused.text


async def test_a_missing_scope_is_refused_before_and_after(house: House) -> None:
    assert (await create(house, "k-1", READER)).status_code == 403
    assert (await create(house, "k-1")).status_code == 201
    assert (await create(house, "k-1", BOB)).status_code == 201


async def test_a_making_that_failed_may_be_tried_again_with_its_key(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise Unavailable("out of room")

    with monkeypatch.context() as patched:
        patched.setattr(house.app.runtime, "make", refuse)
        assert (await create(house, "k-1")).status_code == 503
    assert (await create(house, "k-1")).status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
async def test_what_is_no_key_is_refused_by_its_name(house: House, key: str) -> None:
    answer = await house.call("POST", "/v1/sessions", json=CREATE, headers={"idempotency-key": key.encode("latin-1")})
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["error"]
    assert await made(house) == 0


async def test_a_command_runs_once_and_its_output_is_repeated(house: House) -> None:
    session = await house.create()
    path, headers = f"/v1/sessions/{session['id']}/exec", {"idempotency-key": "run-1"}
    body = {"command": ["sh", "-c", "echo once >> /tmp/count; cat /tmp/count"]}
    first = await house.call("POST", path, json=body, headers=headers)
    again = await house.call("POST", path, json=body, headers=headers)
    assert first.status_code == 200, first.text
    assert again.content == first.content
    assert first.json()["processId"] == again.json()["processId"]


async def test_a_command_with_a_key_outlives_its_client(house: House) -> None:
    session = await house.create()
    path, headers = f"/v1/sessions/{session['id']}/exec", {"idempotency-key": "run-1"}
    body = {"command": ["sleep", "0.4"]}
    with pytest.raises(httpx2.ReadTimeout):
        await house.call("POST", path, json=body, headers=headers, timeout=0.1)
    under_way = await house.call("POST", path, json=body, headers=headers)
    assert under_way.status_code == 409
    for _ in range(100):
        answer = await house.call("POST", path, json=body, headers=headers)
        if answer.status_code != 409:
            break
        await asyncio.sleep(0.05)
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (200, "true")
    assert answer.json()["exitCode"] == 0


async def test_a_session_whose_client_goes_away_is_undone_and_its_key_free(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = house.app.runtime.make

    async def slow(*arguments: Any) -> Any:
        await asyncio.sleep(0.3)
        return await make(*arguments)

    headers = {"idempotency-key": "k-1"}
    with monkeypatch.context() as patched:
        patched.setattr(house.app.runtime, "make", slow)
        with pytest.raises(httpx2.ReadTimeout):
            await house.call("POST", "/v1/sessions", json=CREATE, headers=headers, timeout=0.1)
        await asyncio.sleep(0.1)
    again = await create(house, "k-1")
    assert again.status_code == 201
    for _ in range(100):
        live = await house.records.list_sandboxes(states=LIVE)
        if len(live) == 1:
            break
        await asyncio.sleep(0.02)
    assert [one.id for one in live] == [again.json()["id"]]


async def test_answers_lie_sealed_in_the_records(house: House) -> None:
    session = await house.create()
    path, headers = f"/v1/sessions/{session['id']}/exec", {"idempotency-key": "run-1"}
    answer = await house.call("POST", path, json={"command": ["echo", "canary-17"]}, headers=headers)
    assert "canary-17" in answer.text
    [known] = house.records._idempotent.values()
    assert known.answer is not None
    assert b"canary-17" not in known.answer
    assert b"run-1" not in known.answer
    assert "run-1" not in known.key


async def test_an_answer_that_is_too_large_is_not_kept_and_not_made_again(open_house: Opener) -> None:
    async with open_house(quotas={"idempotency_answer_bytes": 1024}) as house:
        session = await house.create()
        path, headers = f"/v1/sessions/{session['id']}/exec", {"idempotency-key": "run-1"}
        body = {"command": ["echo", "x" * 5000]}
        assert (await house.call("POST", path, json=body, headers=headers)).status_code == 200
        again = await house.call("POST", path, json=body, headers=headers)
        assert again.status_code == 409
        assert "too large" in again.json()["error"]


async def test_without_a_key_nothing_is_written_down(house: House) -> None:
    await house.create()
    assert not house.records._idempotent


async def test_the_document_says_which_operations_take_a_key(house: House) -> None:
    paths = house.app.openapi()["paths"]
    taking = {
        operation["operationId"]
        for methods in paths.values()
        for operation in methods.values()
        if any(one["name"] == "Idempotency-Key" for one in operation["parameters"])
    }
    assert taking == {
        "createSession",
        "exec",
        "createWorkspace",
        "forkWorkspace",
        "createFilesystem",
        "createAgentWorkspace",
        "execInAgentWorkspace",
        "execute",
        "adminGiveCredits",
        "adminRefund",
        "createHomeSandbox",
        "execInHomeSandbox",
        "startJob",
        "createCompute",
        "gatewayCreateSandbox",
        "daemonCreateChild",
        "agentsCreateSandbox",
        "publishWorker",
        "runWorker",
    }
    assert {"409", "422"} <= set(paths["/v1/sessions"]["post"]["responses"])


async def test_a_process_that_was_interrupted_is_not_run_again(house: House) -> None:
    session = await house.create()
    path, headers = f"/v1/sessions/{session['id']}/exec", {"idempotency-key": "run-1"}
    body = {"command": ["sleep", "5"]}
    work = asyncio.create_task(house.call("POST", path, json=body, headers=headers))
    await asyncio.sleep(0.2)
    await house.call("DELETE", f"/v1/sessions/{session['id']}")
    assert (await work).status_code == 409
    again = await house.call("POST", path, json=body, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "IDEMPOTENCY_UNDECIDED")
    assert "cut short" in again.json()["error"]
