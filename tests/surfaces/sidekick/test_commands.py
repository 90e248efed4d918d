"""Commands: what they tell when they were waited for, and how they are found again when they were not."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.services.daemon import commands as service
from atoll.services.daemon.commands import Commands
from atoll.services.daemon.hub import Hubs
from atoll.services.daemon.terminals import DaemonTerminals
from atoll.services.terminals import Terminals
from atoll.surfaces.sidekick.files import whole
from tests.surfaces.conftest import ALICE, BOB, EXECUTOR
from tests.surfaces.sidekick.conftest import Daemon


async def test_a_command_tells_both_outputs_its_code_and_where_it_is_found(daemon: Daemon) -> None:
    ran = await daemon.data("POST", "/run/command", json={"command": "echo out; echo err >&2; exit 3"})
    assert ran["duration_ms"] >= 0
    assert {name: ran[name] for name in ("stdout", "stderr", "exit_code", "status", "terminal_id")} == {
        "stdout": "out\n", "stderr": "err\n", "exit_code": 3, "status": "failed", "terminal_id": "run",
    }  # fmt: skip
    again = await daemon.data("GET", f"/terminals/run/commands/{ran['cmd_id']}")
    assert (again["stdout"], again["stderr"], again["exit_code"]) == ("out\n", "err\n", 3)


async def test_execute_tells_both_outputs_in_one_too(daemon: Daemon) -> None:
    ran = await daemon.data("POST", "/execute", json={"command": "echo a; echo b >&2"})
    assert (ran["output"], ran["status"]) == ("a\nb\n", "completed")


async def test_folder_variables_and_time_are_the_commands_own(daemon: Daemon) -> None:
    body = {"command": "pwd; echo $NAME", "cwd": "/tmp", "env": {"NAME": "v"}, "shell": "sh"}
    assert (await daemon.data("POST", "/run/command", json=body))["stdout"] == "/tmp\nv\n"
    ended = await daemon.data("POST", "/run/command", json={"command": "sleep 60", "timeout": 0.1})
    assert ended["status"] == "failed"


async def test_one_in_the_background_is_listed_and_waited_for(daemon: Daemon) -> None:
    begun = await daemon.data("POST", "/run/command", json={"command": "sleep 0.1; echo x", "background": True})
    assert (begun["status"], begun["stdout"]) == ("running", "")
    path = f"/terminals/{begun['terminal_id']}/commands"
    assert (await daemon.data("GET", f"{path}/{begun['cmd_id']}/wait?timeout=0"))["status"] == "running"
    ended = await daemon.data("GET", f"{path}/{begun['cmd_id']}/wait", headers={"X-Request-Timeout": "5"})
    assert (ended["status"], ended["stdout"], ended["exit_code"]) == ("completed", "x\n", 0)
    listed = await daemon.data("GET", path)
    assert (listed["count"], listed["commands"][0]["cmd_id"]) == (1, begun["cmd_id"])


async def test_commands_and_terminals_are_found_again_by_a_server_that_remembers_nothing(daemon: Daemon) -> None:
    named = (await daemon.data("POST", "/terminals", status=201))["id"]
    shell = (await daemon.data("POST", "/terminals", status=201, json={"pty": True, "encoding": "base64"}))["id"]
    begun = await daemon.data("POST", f"/terminals/{named}/execute", json={"command": "echo x", "async": True})
    sandboxes, hubs, alice = daemon.house.app.sandboxes, Hubs(), daemon.house.keys.principals[ALICE]
    commands = Commands(sandboxes, hubs)
    terminals = DaemonTerminals(sandboxes, Terminals(sandboxes), commands, hubs)
    ended = await commands.wait(alice, daemon.id, begun["cmd_id"], 5, named)
    assert (await commands.output(alice, daemon.id, ended)).stdout == b"x\n"
    assert {one.id for one in await terminals.list(alice, daemon.id)} == {named, shell}
    assert (await terminals.get(alice, daemon.id, shell)).encoding == "base64"
    await terminals.check(alice, daemon.id, named)


@pytest.mark.parametrize(
    "path, body, field",
    [
        ("/run/command", {}, "command"),
        ("/run/command", {"command": ""}, "command"),
        ("/run/command", {"command": "a\0b"}, "NUL"),
        ("/run/command", {"command": "true", "cwd": 5}, "cwd"),
        ("/run/command", {"command": "true", "shell": ""}, "shell"),
        ("/run/command", {"command": "true", "nonsense": 1}, "nonsense"),
        ("/run/command", {"command": "true", "timeout": 0}, "timeout"),
        ("/execute", {"command": 5}, "command"),
        ("/run/code", {"code": "x", "language": "cobol"}, "language"),
        ("/run/code", {}, "code"),
        ("/terminals/run/execute", {"command": []}, "command"),
    ],
)
async def test_what_is_wrong_is_named(daemon: Daemon, path: str, body: dict[str, Any], field: str) -> None:
    answer = await daemon.call("POST", path, json=body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    assert field in answer.json()["error"]


async def test_what_is_not_there_is_404(daemon: Daemon) -> None:
    nobody = "cmd_0123456789abcdef"
    for method, path in (
        ("GET", f"/terminals/run/commands/{nobody}"),
        ("GET", f"/terminals/run/commands/{nobody}/wait"),
        ("GET", "/terminals/nobody/commands"),
        ("GET", "/terminals/exec_0123456789abcdef/commands"),
        ("POST", "/terminals/nobody/execute"),
        ("DELETE", "/terminals/nobody"),
        ("DELETE", "/terminals/no%20name"),
    ):
        more = {"json": {"command": "true"}} if method == "POST" else {}
        answer = await daemon.call(method, path, **more)
        assert (answer.status_code, list(answer.json())) == (404, ["error"]), path


async def test_who_may_only_execute_runs_commands(daemon: Daemon) -> None:
    ran = await daemon.call("POST", "/run/command", EXECUTOR, json={"command": "echo x"})
    assert ran.json()["data"]["stdout"] == "x\n"
    assert (await daemon.call("POST", "/terminals/run/execute", EXECUTOR, json={"command": "true"})).status_code == 200
    assert (await daemon.call("GET", "/terminals/run/commands", EXECUTOR)).status_code == 403


async def test_commands_that_wait_for_their_start_have_a_bound(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PENDING_PER_SANDBOX", 1)
    body = {"command": "echo x", "stream": True}
    assert (await daemon.data("POST", "/run/command", json=body))["status"] == "pending"
    assert (await daemon.call("POST", "/run/command", json=body)).status_code == 429
    monkeypatch.setattr(service, "PENDING_S", 0)  # the first one has waited too long
    assert (await daemon.call("POST", "/run/command", json=body)).status_code == 200


async def test_whoever_does_not_see_a_sandbox_has_no_say_in_its_shell(daemon: Daemon) -> None:
    sandboxes, alice = daemon.house.app.sandboxes, daemon.house.keys.principals[ALICE]
    await sandboxes.files.write(alice, daemon.id, service.BASH[0], whole(b"#!"))
    assert (await daemon.call("POST", "/run/command", BOB, json={"command": "true"})).status_code == 404
    await daemon.data("POST", "/run/command", json={"command": "true"})
    ran = [one for one in await sandboxes.processes.list(alice, daemon.id) if one.label.startswith(service.LABEL)]
    assert [one.argv[0] for one in ran] == [service.BASH[0]]


async def test_what_cannot_be_run_does_not_wait_for_its_start(daemon: Daemon) -> None:
    body = {"command": "true", "env": {"A": "x" * 200_000}, "stream": True}
    answer = await daemon.call("POST", "/run/command", json=body)
    assert (answer.status_code, "env" in answer.json()["error"]) == (400, True)
