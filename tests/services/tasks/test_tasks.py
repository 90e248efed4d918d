"""Tasks: an agent's run in a fresh sandbox from the request to its end, with what is told and what is kept of it."""

from __future__ import annotations

import pytest

from atoll.domain.errors import InvalidInput, NotFound
from atoll.domain.ledger import InsufficientCredit
from atoll.domain.task import TaskEnd, TaskState
from atoll.services.tasks.requests import TaskLimits, TaskRequest, check_request
from tests.services.conftest import ALICE, BOB
from tests.services.tasks.desk import Desk


async def test_a_task_runs_in_a_sandbox_of_its_own_and_its_work_is_a_revision(desk: Desk) -> None:
    task = await desk.done("sh", "-c", "echo made > made.txt; echo hello")
    assert (task.state, task.end, task.output, task.error) == (TaskState.SUCCEEDED, TaskEnd.DONE, "hello\n", "")
    assert await desk.told(task) == ["task.started", "output", "task.ended"]
    assert (await desk.shop.files("w"))[b"made.txt"] == b"made\n"
    [sandbox] = await desk.shop.records.list_sandboxes(owner=ALICE.id)
    assert sandbox.ended and sandbox.spec.task == task.id and sandbox.id == task.sandbox
    events = await desk.shop.records.list_events(target=task.id)
    assert [one.action for one in events] == ["task.created", "task.ended"]


async def test_the_prompt_is_the_programs_input(desk: Desk) -> None:
    assert (await desk.done("cat", prompt="write this")).output.strip() == "write this"


async def test_a_program_that_fails_is_a_task_that_failed(desk: Desk) -> None:
    task = await desk.done("sh", "-c", "echo so far; exit 3")
    assert (task.state, task.end, task.output) == (TaskState.FAILED, TaskEnd.AGENT_FAILED, "so far\n")
    assert "3" in task.error


async def test_a_session_goes_on_in_its_workspace_alone(desk: Desk) -> None:
    first = await desk.done("true")
    second = await desk.done("true", session=first.thread)
    assert second.thread == first.thread
    assert (await desk.tasks.thread(ALICE, first.thread)).tasks == 2
    for wrong in ({"session": "thread_" + "0" * 24}, {"session": first.thread, "workspace": "other"}):
        with pytest.raises(NotFound, match="Session not found"):
            await desk.submit("true", **wrong)
    with pytest.raises(NotFound, match="Session not found"):
        await desk.submit("true", principal=BOB, session=first.thread)
    await desk.tasks.delete_thread(ALICE, first.thread)
    with pytest.raises(NotFound, match="Session not found"):
        await desk.submit("true", session=first.thread)


async def test_what_cannot_be_done_is_refused_before_anything_is_made(desk: Desk) -> None:
    for field, wrong in (
        ("task", {"prompt": ""}),
        ("agent", {"agent": "nobody"}),
        ("command", {"command": ()}),
        ("timeout", {"timeout_s": 10**9}),
        ("budget", {"budget_micro_usd": 0}),
    ):
        with pytest.raises(InvalidInput) as caught:
            await desk.submit(**({"command": ("true",)} | wrong))
        assert caught.value.field == field
    desk.money.refuse = InsufficientCredit()
    with pytest.raises(InsufficientCredit):
        await desk.submit("true")
    assert await desk.shop.records.list_workspaces(owner=ALICE.id) == []
    assert await desk.tasks.list(ALICE) == []


def test_a_command_is_for_one_agent_alone() -> None:
    request = TaskRequest("x", "w", agent="codex", command=("sh",))
    with pytest.raises(InvalidInput, match="only the agent `command` takes one") as refused:
        check_request(request, TaskLimits(), {"codex", "command"})
    assert refused.value.field == "command"


async def test_b01_another_tenants_task_is_an_unknown_one(desk: Desk) -> None:
    task = await desk.done("true")
    for wrong in (task.id, "task_" + "0" * 24, "nonsense"):
        for call in (desk.tasks.get, desk.tasks.cancel, desk.tasks.wait):
            with pytest.raises(NotFound, match=r"^task not found$"):
                await call(BOB, wrong)
        with pytest.raises(NotFound, match=r"^task not found$"):
            await anext(aiter(desk.tasks.events(BOB, wrong)))
    assert await desk.tasks.list(BOB) == []
    assert await desk.tasks.threads(BOB) == []
