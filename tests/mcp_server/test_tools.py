"""The tools, called by the official client: what they answer, what they refuse, and whose things they see."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from mcp import Client

from atoll.mcp.calling import Server
from atoll.mcp.server import make_server
from tests.mcp_server.conftest import Opener, Tools
from tests.surfaces.conftest import ALICE, BOB, READER, House
from tests.surfaces.conftest import Opener as Door

ALICE_ID, BOB_ID = "key_a11ce0000000", "key_b0b000000000"
NAMES = {
    *("create_sandbox", "list_sandboxes", "stop_sandbox", "preview"),
    *("run_command", "run_code", "read_file", "write_file", "list_files", "snapshot", "restore"),
}


@pytest.fixture
async def sandbox(tools: Tools) -> str:
    return (await tools.call("create_sandbox", name="mine"))["id"]


async def test_every_tool_says_what_it_takes_and_what_it_answers(tools: Tools) -> None:
    listed = (await tools.client.list_tools()).tools
    assert {one.name for one in listed} == NAMES
    for one in listed:
        assert one.description and one.output_schema is not None and one.annotations is not None
        assert "ctx" not in one.input_schema["properties"]


async def test_a_sandbox_is_made_listed_used_by_name_and_ended(tools: Tools, sandbox: str) -> None:
    listed = await tools.call("list_sandboxes")
    assert [(one["id"], one["name"], one["network"]) for one in listed["sandboxes"]] == [(sandbox, "mine", "none")]
    assert (await tools.call("run_command", sandbox="mine", command="echo hi"))["stdout"] == "hi\n"
    assert (await tools.call("stop_sandbox", sandbox="mine")) == {"id": sandbox, "state": "killed"}
    assert (await tools.call("list_sandboxes"))["sandboxes"] == []
    for named in (sandbox, "mine"):
        assert "conflict: session not running" in await tools.refused("run_command", sandbox=named, command="true")


async def test_to_stop_a_sandbox_that_is_stopped_is_no_fault(tools: Tools, sandbox: str) -> None:
    later = (await tools.call("create_sandbox", name="mine"))["id"]
    for one in (sandbox, later):
        await tools.call("stop_sandbox", sandbox=one)
    assert await tools.call("stop_sandbox", sandbox=sandbox) == {"id": sandbox, "state": "killed"}
    assert await tools.call("stop_sandbox", sandbox="mine") == {"id": later, "state": "killed"}
    alive = (await tools.call("create_sandbox", name="mine"))["id"]
    assert await tools.call("stop_sandbox", sandbox="mine") == {"id": alive, "state": "killed"}
    for unknown in ("nobody's", "sess_000000000000"):
        said = f"not_found: there is no sandbox {unknown!r}: list_sandboxes shows yours"
        assert said in await tools.refused("stop_sandbox", sandbox=unknown)


async def test_a_name_that_two_have_is_not_guessed(tools: Tools, sandbox: str) -> None:
    await tools.call("create_sandbox", name="mine")
    assert "2 sandboxes have this name" in await tools.refused("stop_sandbox", sandbox="mine")


async def test_commands_tell_how_they_ended(tools: Tools, sandbox: str) -> None:
    assert await tools.call("run_command", sandbox=sandbox, command="exit 3") == {
        "exit_code": 3, "stdout": "", "stderr": "", "timed_out": False, "truncated": False,
    }  # fmt: skip
    late = await tools.call("run_command", sandbox=sandbox, command="sleep 30", timeout_s=0.05)
    assert late["timed_out"] is True
    assert (await tools.call("run_command", sandbox=sandbox, command="cat", stdin="typed"))["stdout"] == "typed"
    assert (await tools.call("run_command", sandbox=sandbox, command="pwd", cwd="/tmp"))["stdout"] == "/tmp\n"


async def test_output_is_cut_in_the_middle(tools: Tools, sandbox: str) -> None:
    ran = await tools.call("run_command", sandbox=sandbox, command="flood 65536", max_output_chars=1_000)
    assert ran["truncated"] is True
    assert ran["stdout"].startswith("000000000000000\n") and ran["stdout"].endswith("000000000004095\n")
    assert "64536 characters left out" in ran["stdout"] and len(ran["stdout"]) < 1_100


async def test_code_runs_in_the_interpreter_of_its_language(tools: Tools, sandbox: str) -> None:
    assert (await tools.call("run_code", sandbox=sandbox, code="echo from sh\n", language="sh"))[
        "stdout"
    ] == "from sh\n"
    assert (await tools.call("run_code", sandbox=sandbox, code="x", language="ruby"))["exit_code"] == 127
    assert "language" in await tools.refused("run_code", sandbox=sandbox, code="x", language="cobol")


async def test_files_are_written_read_in_parts_and_listed(tools: Tools, sandbox: str) -> None:
    wrote = await tools.call("write_file", sandbox=sandbox, path="/tmp/deep/a.txt", content="h\u00e9llo")
    assert wrote == {"path": "/tmp/deep/a.txt", "size": 6}
    first = await tools.call("read_file", sandbox=sandbox, path="/tmp/deep/a.txt", max_bytes=2)
    assert (first["content"], first["encoding"], first["size"], first["next_offset"]) == ("h", "utf-8", 6, 1)
    rest = await tools.call("read_file", sandbox=sandbox, path="/tmp/deep/a.txt", offset=1)
    assert (rest["content"], rest["next_offset"]) == ("\u00e9llo", None)
    assert await tools.call("list_files", sandbox=sandbox, path="/tmp/deep", limit=1) == {
        "path": "/tmp/deep", "entries": [{"name": "a.txt", "kind": "file", "size": 6}], "truncated": False,
    }  # fmt: skip
    assert "not_found" in await tools.refused("read_file", sandbox=sandbox, path="/tmp/none")


async def test_bytes_travel_as_base64(tools: Tools, sandbox: str) -> None:
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    await tools.call("write_file", sandbox=sandbox, path="/tmp/b", content=text, encoding="base64")
    read = await tools.call("read_file", sandbox=sandbox, path="/tmp/b")
    assert (read["encoding"], read["content"], read["size"]) == ("base64", text, 256)
    refused = await tools.refused("write_file", sandbox=sandbox, path="/tmp/b", content="%", encoding="base64")
    assert "base64" in refused


async def test_a_workspace_is_kept_and_brought_back(house: House, tools: Tools) -> None:
    made = await house.call("POST", "/v1/workspaces", json={"name": "site"})
    assert made.status_code == 201
    sandbox = (await tools.call("create_sandbox", workspace="site"))["id"]
    await tools.call("write_file", sandbox=sandbox, path="/workspace/a", content="first")
    kept = await tools.call("snapshot", workspace="site", name="good")
    await tools.call("write_file", sandbox=sandbox, path="/workspace/a", content="second")
    back = await tools.call("restore", workspace="site", snapshot="good")
    assert back["workspace"] == kept["workspace"] and back["changed"] is True
    assert (await tools.call("read_file", sandbox=sandbox, path="/workspace/a"))["content"] == "first"


async def test_a_workspace_that_is_not_there_is_made_with_the_sandbox(house: House, tools: Tools) -> None:
    for name in ("first", "second"):
        sandbox = (await tools.call("create_sandbox", workspace="new", name=name))["id"]
        await tools.call("write_file", sandbox=sandbox, path=f"/workspace/{name}", content="kept")
        await tools.call("stop_sandbox", sandbox=sandbox)
    listed = (await house.call("GET", "/v1/workspaces")).json()["workspaces"]
    assert [one["name"] for one in listed] == ["new"]
    for other in ("bob/new", f"ws_{'0' * 32}"):
        assert "not_found: workspace not found" in await tools.refused("create_sandbox", workspace=other)


async def test_a_workspace_that_others_share_is_not_made_anew(house: House, agent: Opener, tools: Tools) -> None:
    await tools.call("create_sandbox", workspace="ours")
    path = f"/v1/workspaces/ours/collaborators/{BOB_ID}"
    assert (await house.call("PUT", path, json={"permission": "write"})).status_code == 200
    async with agent(BOB) as bob:
        assert f"(shared with you: {ALICE_ID}/ours)" in await bob.refused("create_sandbox", workspace="ours")


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("run_command", {"command": ""}),
        ("run_command", {"command": "true", "timeout_s": 0}),
        ("read_file", {"path": "/a", "max_bytes": 2**30}),
        ("read_file", {"path": "a\0b"}),
        ("write_file", {"path": "", "content": "x"}),
        ("list_sandboxes", {"limit": 0}),
        ("preview", {"port": 70_000}),
    ],
    ids=["no_command", "no_time", "too_much", "nul", "no_path", "none", "no_port"],
)
async def test_what_cannot_be_is_refused(tools: Tools, sandbox: str, tool: str, given: dict[str, Any]) -> None:
    more = {} if tool == "list_sandboxes" else {"sandbox": sandbox}
    assert next(iter(given)) in await tools.refused(tool, **given, **more) or tool == "read_file"


async def test_a_port_is_shown_by_a_link_that_opens_it_for_a_time(house: House, tools: Tools, sandbox: str) -> None:
    shown = await tools.call("preview", sandbox=sandbox, port=8000, lasts_s=60)
    assert shown["link"].startswith(shown["url"]) and "preview_token=" in shown["link"]
    assert shown["url"].startswith(house.url)
    listed = (await house.call("GET", "/preview/list")).json()
    assert list(listed) == [f"{sandbox}:8000"]
    said = {"sandbox_id": sandbox, "port": 8000, "public": True, "metadata": {"of": "mine"}}
    await house.call("POST", "/preview/register", json=said)
    again = await tools.call("preview", sandbox=sandbox, port=8000, lasts_s=60)
    assert again["url"] == shown["url"]
    kept = (await house.call("GET", "/preview/list")).json()[f"{sandbox}:8000"]
    assert (kept["public"], kept["metadata"]) == (True, {"of": "mine"})


async def test_a_sandbox_must_be_named_unless_the_server_has_one(agent: Opener, tools: Tools, sandbox: str) -> None:
    assert "sandbox is required" in await tools.refused("run_command", command="true")
    async with agent(sandbox=sandbox) as bound:
        assert (await bound.call("run_command", command="echo mine"))["stdout"] == "mine\n"


async def test_a02_the_things_of_another_are_unknown(agent: Opener, sandbox: str) -> None:
    async with agent(BOB) as bob:
        assert (await bob.call("list_sandboxes"))["sandboxes"] == []
        calls: dict[str, dict[str, Any]] = {
            "run_command": {"command": "true"}, "run_code": {"code": "x"}, "read_file": {"path": "/etc/hostname"},
            "write_file": {"path": "/tmp/a", "content": "x"}, "list_files": {}, "preview": {"port": 80},
            "stop_sandbox": {},
        }  # fmt: skip
        for tool, given in calls.items():
            theirs = await bob.refused(tool, sandbox=sandbox, **given)
            nobodys = await bob.refused(tool, sandbox="sess_000000000000", **given)
            assert theirs.replace(sandbox, "sess_000000000000") == nobodys and "not_found" in theirs, tool


async def test_a03_a_reader_reads_and_no_more(agent: Opener, sandbox: str) -> None:
    async with agent(READER) as reader:
        assert (await reader.call("list_files", sandbox=sandbox, path="/tmp"))["entries"] == []
        for tool, given in (("run_command", {"command": "true"}), ("write_file", {"path": "/a", "content": ""})):
            assert "forbidden" in await reader.refused(tool, sandbox=sandbox, **given)


async def test_a01_without_a_good_key_nothing_is_told(agent: Opener) -> None:
    async with agent("sk_" + "99" * 32) as nobody:
        assert "unauthorized" in await nobody.refused("list_sandboxes")


async def test_a_tool_that_is_asked_too_often_says_when_to_ask_again(open_house: Door) -> None:
    async with open_house(rates={"key_per_s": 0.1, "key_burst": 1}) as house:
        assert (await house.call("GET", "/v1/sessions")).status_code == 200
        async with Client(make_server(Server(house.url, ALICE))) as client:
            refused = await Tools(client).refused("list_sandboxes")
    assert "rate_limited" in refused and re.search(r"\(try again in ([1-9]|10) s\)", refused)
