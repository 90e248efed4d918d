"""The Agent Workspace API, to the letter of its wire page, with commands that really run."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from atoll.domain.sandbox import SandboxState
from tests.services.conftest import until

BOB = "key_b0b000000000"
OWNER = "key_0143e0000000"
LOST = {"detail": "Workspace not found"}


async def create(house: Any, key: Any = None, **body: Any) -> dict[str, Any]:
    more = () if key is None else (key,)
    answer = await house.call("POST", "/workspaces", *more, json={"name": "agents"} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_object_has_the_wire_pages_fields(house: Any) -> None:
    made = await create(house, description="d", tags=["x"])
    uuid.UUID(made["workspace_id"])
    assert made == {
        "agent_id": "key_a11ce0000000",
        "workspace_id": made["workspace_id"],
        "sandbox_id": None,
        "name": "agents",
        "description": "d",
        "created_at": made["created_at"],
        "status": "active",
        "shared_with": [],
        "tags": ["x"],
    }
    assert (await house.call("GET", "/workspaces")).json() == [made]
    assert (await house.call("GET", f"/workspaces/{made['workspace_id']}")).json() == made
    native = (await house.call("GET", f"/v1/workspaces/{made['workspace_id']}")).json()
    assert native["id"] == "ws_" + uuid.UUID(made["workspace_id"]).hex


async def test_delete_is_the_owners_alone(house: Any, keys: Any) -> None:
    path = f"/workspaces/{(await create(house))['workspace_id']}"
    assert (await house.call("DELETE", path, keys.BOB)).json() == LOST
    await house.call("POST", path + "/share", json={"target_agent_ids": [BOB], "permission": "admin"})
    answer = await house.call("DELETE", path, keys.BOB)
    assert (answer.status_code, answer.json()) == (403, {"detail": "Only the workspace owner can delete it"})
    assert (await house.call("DELETE", path)).json() == {"deleted": True}
    answer = await house.call("GET", path)
    assert (answer.status_code, answer.json()) == (404, LOST)


async def test_a_name_is_no_id_here(house: Any) -> None:
    await create(house)
    assert (await house.call("GET", "/workspaces/agents")).json() == LOST


async def test_a_command_runs_in_a_sandbox_that_the_first_one_makes(house: Any) -> None:
    made = await create(house)
    path = f"/workspaces/{made['workspace_id']}"
    answer = await house.call("POST", path + "/exec", json={"command": "echo", "args": ["hi", "there"]})
    assert answer.status_code == 200, answer.text
    ran = answer.json()
    assert ran == {
        "workspace_id": made["workspace_id"],
        "sandbox_id": ran["sandbox_id"],
        "command": "echo",
        "args": ["hi", "there"],
        "status": "completed",
        "stdout": "hi there\n",
        "stderr": "",
        "exit_code": 0,
    }
    assert (await house.call("GET", path)).json()["sandbox_id"] == ran["sandbox_id"]
    session = (await house.call("GET", f"/v1/sessions/{ran['sandbox_id']}")).json()
    assert [one["path"] for one in session["workspaces"]] == ["/workspace"]
    assert session["resources"]["idleMs"] == 900_000
    again = (await house.call("POST", path + "/exec", json={"command": "sh -c 'exit 3'"})).json()
    assert (again["sandbox_id"], again["exit_code"]) == (ran["sandbox_id"], 3)


async def test_first_commands_at_the_same_time_share_one_sandbox(house: Any) -> None:
    path = f"/workspaces/{(await create(house))['workspace_id']}/exec"
    answers = await asyncio.gather(*(house.call("POST", path, json={"command": f"echo {n}"}) for n in range(6)))
    assert [one.json()["stdout"] for one in answers] == [f"{n}\n" for n in range(6)]
    assert len({one.json()["sandbox_id"] for one in answers}) == 1
    assert len((await house.call("GET", "/v1/sessions")).json()["sessions"]) == 1


async def test_a_sandbox_that_has_ended_is_followed_by_another(house: Any) -> None:
    path = f"/workspaces/{(await create(house))['workspace_id']}/exec"
    first = (await house.call("POST", path, json={"command": "true"})).json()["sandbox_id"]
    await house.call("DELETE", f"/v1/sessions/{first}")
    second = (await house.call("POST", path, json={"command": "true"})).json()["sandbox_id"]
    assert second != first


async def test_a_command_whose_sandbox_ends_is_not_run_again(house: Any) -> None:
    path = f"/workspaces/{(await create(house))['workspace_id']}/exec"
    first = (await house.call("POST", path, json={"command": "true"})).json()["sandbox_id"]
    running = asyncio.create_task(house.call("POST", path, json={"command": "sleep 30"}))

    async def started() -> bool:
        return "sleep" in (await house.call("GET", f"/v1/sessions/{first}/processes")).text

    await until(started)
    await house.call("DELETE", f"/v1/sessions/{first}")
    assert (await asyncio.wait_for(running, 5)).status_code == 409
    sessions = (await house.call("GET", "/v1/sessions")).json()["sessions"]
    assert [one["id"] for one in sessions if one["status"] == "running"] == []


async def test_a_sandbox_that_rests_is_woken_by_the_next_command(house: Any) -> None:
    path = f"/workspaces/{(await create(house))['workspace_id']}"
    first = (await house.call("POST", path + "/exec", json={"command": "true"})).json()["sandbox_id"]
    session = f"/v1/sessions/{first}"
    await house.call("POST", f"{session}/files?path=/workspace/a", content=b"kept")
    assert (await house.call("POST", f"{session}/suspend")).status_code == 200
    again = (await house.call("POST", path + "/exec", json={"command": "true"})).json()
    assert (again["sandbox_id"], again["exit_code"]) == (first, 0)
    assert (await house.call("GET", f"{session}/files?path=/workspace/a")).content == b"kept"
    assert (await house.call("POST", f"{session}/suspend")).status_code == 200
    assert (await house.call("DELETE", path)).json() == {"deleted": True}
    sandbox = await house.records.get_sandbox(first)
    assert sandbox.state is SandboxState.KILLED


async def test_a_command_that_takes_too_long_is_ended(house: Any) -> None:
    path = f"/workspaces/{(await create(house))['workspace_id']}/exec"
    answer = (await house.call("POST", path, json={"command": "sleep 60", "timeout": 0.2})).json()
    assert answer["status"] == "timed_out" and answer["exit_code"] != 0


async def test_deleting_ends_the_sandbox(house: Any) -> None:
    path = f"/workspaces/{(await create(house))['workspace_id']}"
    sandbox_id = (await house.call("POST", path + "/exec", json={"command": "true"})).json()["sandbox_id"]
    assert (await house.call("DELETE", path)).json() == {"deleted": True}
    sandbox = await house.records.get_sandbox(sandbox_id)
    assert sandbox.state is SandboxState.KILLED


async def test_a_workspace_that_others_use_is_refused_to_delete_and_its_sandbox_goes_on(house: Any) -> None:
    made = await create(house)
    path = f"/workspaces/{made['workspace_id']}"
    sandbox_id = (await house.call("POST", path + "/exec", json={"command": "true"})).json()["sandbox_id"]
    other = await house.create(workspaces=[{"workspace": made["name"], "path": "/workspace"}])
    answer = await house.call("DELETE", path)
    assert answer.status_code == 409 and other["id"] in answer.json()["detail"]
    assert (await house.records.get_sandbox(sandbox_id)).state is SandboxState.RUNNING


async def test_the_sandbox_is_as_its_configuration_says(house: Any) -> None:
    config = {"env": {"GREETING": "hello"}, "memory_mb": 256, "cpuMillis": 500, "network": "none", "gpu": "ignored"}
    path = f"/workspaces/{(await create(house, sandbox_config=config))['workspace_id']}"
    ran = (await house.call("POST", path + "/exec", json={"command": "env"})).json()
    sandbox_id = ran["sandbox_id"]
    assert "GREETING=hello\n" in ran["stdout"]
    session = (await house.call("GET", f"/v1/sessions/{sandbox_id}")).json()
    assert (session["resources"]["memoryMB"], session["resources"]["cpuMillis"]) == (256, 500)
    assert (session["network"]["mode"], session["workDir"]) == ("none", "/workspace")


async def test_what_a_configuration_says_is_sealed_and_gone_with_the_workspace(house: Any) -> None:
    made = await create(house, sandbox_config={"env": {"TOKEN": "s3cr3t"}})
    path, workspace_id = f"/workspaces/{made['workspace_id']}", "ws_" + uuid.UUID(made["workspace_id"]).hex
    record = await house.records.get_workspace(workspace_id)
    assert record.sandbox_config and "TOKEN" not in record.sandbox_config and "s3cr3t" not in record.sandbox_config
    # As it was kept before: it works as it is, and is sealed by the next start.
    await house.records.swap_workspace(replace(record, sandbox_config='{"env":{"TOKEN":"old"}}'), None)
    assert "TOKEN=old\n" in (await house.call("POST", path + "/exec", json={"command": "env"})).json()["stdout"]
    await house.app.workspaces._parts.sandbox_configs.seal_clear_ones()
    record = await house.records.get_workspace(workspace_id)
    assert "old" not in record.sandbox_config
    await house.call("DELETE", f"/v1/sessions/{record.sandbox_id}")
    assert "TOKEN=old\n" in (await house.call("POST", path + "/exec", json={"command": "env"})).json()["stdout"]
    assert (await house.call("DELETE", path)).json() == {"deleted": True}
    assert (await house.records.get_workspace(workspace_id)).sandbox_config is None


@pytest.mark.parametrize("config", [{"memory_mb": "much"}, {"network": "exposed"}, {"env": {"A": 1}}, [], "x"])
async def test_a_configuration_that_cannot_be_is_422(house: Any, config: Any) -> None:
    answer = await house.call("POST", "/workspaces", json={"name": "n", "sandbox_config": config})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["body", "sandbox_config"]
    assert (await house.call("GET", "/workspaces")).json() == []


async def test_read_collaborators_run_nothing_and_others_run_in_the_owners_sandbox(house: Any, keys: Any) -> None:
    path = f"/workspaces/{(await create(house))['workspace_id']}"
    body = {"command": "true"}
    answer = await house.call("POST", path + "/exec", keys.BOB, json=body)
    assert (answer.status_code, answer.json()) == (404, LOST)
    shared = await house.call("POST", path + "/share", json={"target_agent_ids": [BOB]})
    assert shared.json() == {"shared": True, "collaborators": {BOB: "read"}}
    answer = await house.call("POST", path + "/exec", keys.BOB, json=body)
    expected = {"detail": "Read-only access cannot execute commands"}
    assert (answer.status_code, answer.json()) == (403, expected)
    await house.call("POST", path + "/share", json={"target_agent_ids": [BOB], "permission": "write"})
    ran = (await house.call("POST", path + "/exec", keys.BOB, json=body)).json()
    assert ran["exit_code"] == 0
    assert (await house.call("GET", f"/v1/sessions/{ran['sandbox_id']}")).status_code == 200
    assert (await house.call("GET", f"/v1/sessions/{ran['sandbox_id']}", keys.BOB)).status_code == 404


@pytest.mark.parametrize("lost", ["revoked_at", "expires_at"])
async def test_nobody_runs_commands_in_the_name_of_a_key_that_is_none_any_more(
    house: Any, keys: Any, lost: str
) -> None:
    made = await create(house)
    path = f"/workspaces/{made['workspace_id']}"
    await house.call("POST", path + "/share", json={"target_agent_ids": [BOB], "permission": "write"})
    body = {"command": "true"}
    assert (await house.call("POST", path + "/exec", keys.BOB, json=body)).status_code == 200
    key = await house.records.get_key(made["agent_id"])
    await house.records.swap_key(replace(key, **{lost: datetime.now(UTC)}), None)
    answer = await house.call("POST", path + "/exec", keys.BOB, json=body)
    assert (answer.status_code, list(answer.json())) == (403, ["detail"])
    assert "revoked or has expired" in answer.json()["detail"]
    assert (await house.call("GET", path, keys.BOB)).status_code == 200  # what a share gives itself stays


async def test_sharing_is_the_owners_and_admins(house: Any, keys: Any) -> None:
    made = await create(house)
    path = f"/workspaces/{made['workspace_id']}"
    nobody = await house.call("POST", path + "/share", json={"target_agent_ids": [BOB, "agent-7"]})
    said = "principal must be the name or id of a user or a group of yours, or the id of a key, on this server"
    said += ", not 'agent-7'"
    assert (nobody.status_code, [one["loc"] for one in nobody.json()["detail"]]) == (
        422,
        [["body", "target_agent_ids"]],
    )
    assert nobody.json()["detail"][0]["msg"] == said
    assert (await house.call("GET", path + "/collaborators")).json() == {"collaborators": {}}
    wrong = await house.call("POST", path + "/share", json={"target_agent_ids": [BOB], "permission": "own"})
    assert (wrong.status_code, wrong.json()) == (400, {"detail": "Permission must be read, write, or admin"})
    await house.call("POST", path + "/share", json={"target_agent_ids": [BOB, OWNER]})
    seen = (await house.call("GET", path, keys.BOB)).json()
    assert (seen["agent_id"], sorted(seen["shared_with"])) == (made["agent_id"], sorted([BOB, OWNER]))
    assert (await house.call("GET", "/workspaces", keys.BOB)).json() == []  # its own ones only
    refused = await house.call("POST", path + "/share", keys.BOB, json={"target_agent_ids": [OWNER]})
    assert (refused.status_code, refused.json()) == (403, {"detail": "Only the workspace owner can share it"})
    refused = await house.call("DELETE", path + f"/share/{OWNER}", keys.BOB)
    assert (refused.status_code, refused.json()) == (403, {"detail": "Only the workspace owner can revoke access"})
    found = (await house.call("GET", path + "/collaborators", keys.BOB)).json()
    assert found == {"collaborators": {BOB: "read", OWNER: "read"}}
    await house.call("POST", path + "/share", json={"target_agent_ids": [BOB], "permission": "admin"})
    passed = await house.call("POST", path + "/share", keys.BOB, json={"target_agent_ids": [OWNER]})
    assert passed.status_code == 200  # an admin collaborator passes
    assert (await house.call("DELETE", path + f"/share/{BOB}")).json() == {"revoked": True}
    assert (await house.call("GET", path, keys.BOB)).json() == LOST
    gone = await house.call("DELETE", path + f"/share/{BOB}")
    expected = {"detail": "Agent not found in collaborators for this workspace"}
    assert (gone.status_code, gone.json()) == (404, expected)


async def test_a_taken_name_and_a_bad_one_are_told_in_the_envelope(house: Any) -> None:
    await create(house)
    taken = await house.call("POST", "/workspaces", json={"name": "agents"})
    assert (taken.status_code, list(taken.json())) == (409, ["detail"])
    bad = await house.call("POST", "/workspaces", json={"name": "a/b"})
    assert (bad.status_code, bad.json()["detail"][0]["loc"]) == (422, ["body", "name"])
    unknown = await house.call("GET", "/workspaces?limit=1")
    assert unknown.status_code == 422
