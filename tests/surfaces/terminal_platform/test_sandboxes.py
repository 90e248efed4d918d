"""Terminal Platform's Sandbox API, to the letter of its wire page."""

from __future__ import annotations

import re
from typing import Any

import pytest


async def make(house: Any, **body: Any) -> str:
    answer = await house.call("POST", "/sandboxes", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["sandbox_id"]


async def test_a_sandbox_has_its_callers_default_workspace_and_shares_it(house: Any) -> None:
    made = (await house.call("POST", "/sandboxes")).json()
    assert made["workspace"] == "/workspace"
    assert re.fullmatch(r"sess_[0-9a-f]{12}", made["sandbox_id"])
    other = await make(house, sandbox_id="my-own")
    assert other == "my-own"
    wrote = await house.call("POST", f"/sandboxes/{made['sandbox_id']}/files", json={"path": "/d/a.txt", "data": "é"})
    assert (wrote.status_code, wrote.json()) == (200, {"success": True})
    read = await house.call("GET", "/sandboxes/my-own/files/d/a.txt")
    assert read.json() == {"content": "é"}
    kept = (await house.call("POST", "/snapshot/create")).json()
    assert kept["success"] is True
    await house.call("POST", "/sandboxes/my-own/files", json={"path": "d/a.txt", "data": "changed"})
    await house.call("POST", "/snapshot/restore", json={"snapshot_id": kept["snapshot_id"]})
    assert (await house.call("GET", "/sandboxes/my-own/files/d/a.txt")).json() == {"content": "é"}
    listed = (await house.call("GET", "/snapshot/list")).json()["snapshots"]
    assert [one["snapshot_id"] for one in listed] == [kept["snapshot_id"]]


async def test_an_id_of_ones_own_is_ones_own_until_the_sandbox_is_deleted(house: Any, keys: Any) -> None:
    await make(house, sandbox_id="box")
    taken = await house.call("POST", "/sandboxes", json={"sandbox_id": "box"})
    assert (taken.status_code, taken.json()) == (
        409, {"detail": "Another live sandbox of yours has the sandbox_id 'box'"},
    )  # fmt: skip
    assert (await house.call("POST", "/sandboxes", keys.BOB, json={"sandbox_id": "box"})).status_code == 200
    gone = await house.call("DELETE", "/sandboxes/box")
    assert gone.json() == {"message": "Sandbox box deleted successfully."}
    again = await house.call("DELETE", "/sandboxes/box")
    assert (again.status_code, again.json()) == (404, {"detail": "Sandbox box not found"})
    assert (await house.call("POST", "/sandboxes", json={"sandbox_id": "box"})).status_code == 200
    for bad in ("", "a/b", "sess_0123456789ab", "x" * 129, "é"):
        refused = await house.call("POST", "/sandboxes", json={"sandbox_id": bad})
        assert refused.status_code == 422, bad
        assert refused.json()["detail"][0]["loc"] == ["body", "sandbox_id"]


async def test_what_has_ended_is_called_a_sandbox(house: Any) -> None:
    box = await make(house)
    await house.call("DELETE", f"/v1/sessions/{box}")
    answer = await house.call("POST", f"/sandboxes/{box}/exec", json={"command": "true"})
    assert (answer.status_code, answer.json()) == (409, {"detail": "Sandbox not running: status=killed"})


async def test_exec_tells_output_exit_and_time_out(house: Any) -> None:
    box = await make(house)
    for body, said in (
        ({"command": "echo", "args": ["a  b"]}, {"stdout": "a  b\n", "stderr": "", "exit_code": 0}),
        ({"command": "echo 'a  b' c"}, {"stdout": "a  b c\n", "stderr": "", "exit_code": 0}),
        ({"command": "sh", "args": ["-c", "echo no >&2; exit 3"]}, {"stdout": "", "stderr": "no\n", "exit_code": 3}),
        ({"command": "pwd"}, {"stdout": "/workspace\n", "stderr": "", "exit_code": 0}),
        ({"command": "sleep 60", "timeout": 1}, {"stdout": "", "stderr": "Execution timed out", "exit_code": -15}),
    ):
        answer = await house.call("POST", f"/sandboxes/{box}/exec", json=body)
        assert (answer.status_code, answer.json()) == (200, said), body
    bad = await house.call("POST", f"/sandboxes/{box}/exec", json={"timeout": 0})
    assert bad.status_code == 422
    assert {one["loc"][-1] for one in bad.json()["detail"]} == {"command", "timeout"}
    unknown = await house.call("POST", "/sandboxes/none/exec", json={"command": "true"})
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Sandbox not found"})


async def test_a_quota_that_is_used_up_is_told_with_200(open_house: Any) -> None:
    async with open_house(quotas={"plans": {"key": {"executions_per_hour": 1}}}) as house:
        box = await make(house)
        first = await house.call("POST", f"/sandboxes/{box}/exec", json={"command": "true"})
        assert first.json()["exit_code"] == 0
        second = await house.call("POST", f"/sandboxes/{box}/exec", json={"command": "true"})
        assert (second.status_code, second.json()) == (200, {"error": "quota_exceeded"})


async def test_files_stay_in_the_workspace(house: Any) -> None:
    box = await make(house)
    for path in ("/a", "b/../a", "./a", "//a"):
        assert (await house.call("POST", f"/sandboxes/{box}/files", json={"path": path, "data": path})).is_success
        assert (await house.call("GET", f"/sandboxes/{box}/files/a")).json() == {"content": path}
    await house.call("POST", f"/sandboxes/{box}/files", json={"path": "d/e/f", "data": ""})
    listed = await house.call("GET", f"/sandboxes/{box}/files")
    assert listed.json() == {"entries": ["a", "d"]}
    assert (await house.call("GET", f"/sandboxes/{box}/files?path=d/e")).json() == {"entries": ["d/e/f"]}
    assert (await house.call("GET", f"/sandboxes/{box}/files?path=/nowhere")).json() == {"entries": []}
    lost = await house.call("GET", f"/sandboxes/{box}/files/nowhere")
    assert (lost.status_code, lost.json()) == (404, {"detail": "File not found"})
    for call in (
        house.call("POST", f"/sandboxes/{box}/files", json={"path": "../etc/passwd", "data": ""}),
        house.call("GET", f"/sandboxes/{box}/files?path=a/../.."),
        house.call("GET", f"/sandboxes/{box}/files/%2e%2e/etc/passwd"),
        house.call("GET", f"/sandboxes/{box}/files/..%2fetc%2fpasswd"),
    ):
        refused = await call
        assert (refused.status_code, refused.json()) == (400, {"detail": "directory traversal prevented"})
    named = await house.call("GET", f"/sandboxes/{box}/files/%252e%252e/etc/passwd")  # a name, decoded once
    assert named.status_code == 404
    for bad in ("a\0b", "x" * 4097):
        refused = await house.call("POST", f"/sandboxes/{box}/files", json={"path": bad, "data": ""})
        assert refused.status_code == 422, bad
    assert (await house.call("GET", f"/sandboxes/{box}/files/%00")).status_code == 422
    assert (await house.call("GET", f"/sandboxes/{box}/files/%c0%ae")).status_code == 422


async def test_what_is_no_text_is_left_out_and_what_is_too_large_is_refused(open_house: Any) -> None:
    async with open_house(limits={"run_output_bytes": 4096}) as house:
        box = await make(house)
        raw = f"/v1/sessions/{box}/files?path=/workspace/raw"
        assert (await house.call("POST", raw, content=b"a\xffb")).status_code == 201
        assert (await house.call("GET", f"/sandboxes/{box}/files/raw")).json() == {"content": "ab"}
        assert (await house.call("POST", raw, content=b"x" * 4097)).status_code == 201
        assert (await house.call("GET", f"/sandboxes/{box}/files/raw")).status_code == 413


async def test_keepalive_and_every_answer_to_who_may_not(house: Any, keys: Any) -> None:
    box = await make(house)
    assert (await house.call("POST", f"/sandboxes/{box}/keepalive")).json() == {"status": "ok"}
    for key, said in ((keys.BOB, 404), (None, 401), (keys.READER, 403)):
        assert (await house.call("POST", f"/sandboxes/{box}/keepalive", key)).status_code == said
    nobody = await house.call("GET", "/sandboxes/sess_0123456789ab/files")
    assert (nobody.status_code, nobody.json()) == (404, {"detail": "Sandbox not found"})


@pytest.mark.parametrize("network", ["none", "outgoing"])
async def test_what_the_sandbox_is_like_may_be_said(house: Any, network: str) -> None:
    box = await make(house, sandbox_config={"network": network, "memory_mb": 128})
    spec = house.host.sandboxes[box].spec
    assert (spec.network.value, spec.resources.memory_bytes) == (network, 128 * 2**20)
    refused = await house.call("POST", "/sandboxes", json={"sandbox_config": {"network": "everything"}})
    assert refused.status_code == 422


async def test_a_port_is_registered_to_be_shown_and_answers_where(house: Any) -> None:
    box = await make(house, sandbox_id="web")
    shown = await house.call("POST", "/sandboxes/web/preview", json={"port": 8000})
    assert shown.status_code == 200, shown.text
    assert shown.json()["url"].startswith(house.url)
    (listed,) = (await house.call("GET", "/preview/list")).json().values()
    assert (listed["sandbox_id"].startswith("sess_"), listed["port"], box) == (True, 8000, "web")
    assert (await house.call("POST", "/sandboxes/web/preview", json={"port": 0})).status_code == 422
