from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from atoll.cli import run
from atoll.domain.errors import NotFound
from atoll.sdk import AsyncSandbox
from tests.cli.conftest import Atoll
from tests.sdk.cutting_proxy import CuttingProxy
from tests.sdk.local_process import LocalProcess
from tests.sdk.stand_in import StandIn
from tests.sdk.test_process import MANY_LINES, MANY_LINES_TEXT


def test_output_error_and_exit_code_are_the_commands(atoll: Atoll) -> None:
    done = atoll("run", "--rm", "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 42)


def test_options_end_where_the_command_begins(atoll: Atoll) -> None:
    assert atoll("run", "--rm", "echo", "--rm", "-it", "--", "x").stdout == "--rm -it -- x\n"


def test_a_pipe_is_sent_through(atoll: Atoll) -> None:
    data = os.urandom(300_000).hex()
    done = atoll("run", "--rm", "--", "cat", stdin=data)
    assert done.stdout == data


def test_a_file_is_sent_through(atoll: Atoll) -> None:
    with open(__file__, "rb") as file:
        out, _ = atoll.start("run", "--rm", "cat", stdin=file).communicate(timeout=30)
        file.seek(0)
        assert out == file.read()


def test_without_input_the_command_sees_its_end(atoll: Atoll) -> None:
    running = atoll.start("run", "--rm", "cat")
    assert running.communicate(timeout=30) == (b"", b"")
    assert running.returncode == 0


def test_json_is_one_object_at_the_end(atoll: Atoll) -> None:
    done = atoll("run", "--rm", "--json", "--", "sh", "-c", "cat; echo err >&2; kill -9 $$", stdin="out")
    said = json.loads(done.stdout)
    assert said["id"].startswith("sess_")
    assert {key: said[key] for key in ("process", "exit_code", "signal", "stdout", "stderr", "truncated")} == {
        "process": "main", "exit_code": 137, "signal": 9, "stdout": "out", "stderr": "err\n", "truncated": False,
    }  # fmt: skip
    assert done.returncode == 137
    atoll("run", "-d", "--name", "box", "--", "sleep", "60")
    said = json.loads(atoll("exec", "--json", "box", "--", "echo", "hi").stdout)
    assert (said["exit_code"], said["stdout"]) == (0, "hi\n")


def test_lost_output_is_no_success(atoll: Atoll, server: StandIn) -> None:
    server.routes.forgotten = 6
    done = atoll("run", "--rm", "--", "echo", "hello world")
    assert (done.returncode, done.stdout) == (125, "world\n")
    assert done.stderr.startswith("atoll: 6 bytes of output")
    assert json.loads(atoll("run", "--rm", "--json", "--", "echo", "hello world").stdout)["truncated"]


def test_a_command_that_ran_out_of_memory_says_so(
    atoll: Atoll, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = ("run", "--rm", "--", "sh", "-c", "kill -9 $$")
    assert atoll(*killed).stderr == ""
    monkeypatch.setattr(LocalProcess, "oom_killed", True)
    done = atoll(*killed)
    assert "more memory" in done.stderr
    assert done.returncode == 137
    assert json.loads(atoll("run", "--json", *killed[1:]).stdout)["oom_killed"] is True


def test_rm_forgets_and_its_absence_remembers(atoll: Atoll, server: StandIn) -> None:
    assert atoll("run", "--rm", "--", "true").returncode == 0
    assert server.routes.boxes == {}
    assert atoll("run", "--name", "kept", "--", "echo", "said").returncode == 0
    assert atoll("logs", "kept").stdout == "said\n"


def test_every_option_reaches_the_server(atoll: Atoll, server: StandIn) -> None:
    done = atoll(
        "run", "-d", "--name", "n", "--cpus", "0.5", "--memory", "1g", "--disk", "64m", "--timeout", "1.5m",
        "--idle", "90s", "--network", "exposed", "--env", "A=b=c", "-e", "TERM", "-p", "8000", "-w", "/", "--json",
        "--", "sleep", "60",
    )  # fmt: skip
    made = json.loads(done.stdout)
    body = server.routes.boxes[made["id"]].body
    assert body == {
        "image": "host", "name": "n", "command": ["sleep", "60"], "network": "exposed", "workDir": "/",
        "env": {"A": "b=c", "TERM": "xterm"}, "ports": [{"container": 8000}],
        "resources": {"cpuMillis": 500, "memoryMB": 1024, "diskMB": 64, "timeoutMs": 90_000, "idleMs": 90_000},
    }  # fmt: skip


def test_detached_it_prints_the_id_and_goes_on(atoll: Atoll, server: StandIn) -> None:
    done = atoll("run", "-d", "--", "sleep", "60")
    assert server.routes.boxes[done.stdout.strip()].status == "running"


def test_detached_it_says_on_standard_error_where_its_ports_are(capsys: pytest.CaptureFixture[str]) -> None:
    port = SimpleNamespace(container_port=8000, url="http://127.0.0.1:4321")
    box: Any = SimpleNamespace(id="sess_1", created=SimpleNamespace(ports=[port], raw={"id": "sess_1"}))
    run._print_made(box, False)  # pyright: ignore
    assert tuple(capsys.readouterr()) == ("sess_1\n", "port 8000 is at http://127.0.0.1:4321\n")
    run._print_made(box, True)  # pyright: ignore
    printed = capsys.readouterr()
    assert (json.loads(printed.out), printed.err) == ({"id": "sess_1"}, "")


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--memory", "lots", "--memory must look like 512m or 2g, not 'lots'"),
        ("--memory", "512", "--memory must look like 512m or 2g, not '512'"),
        ("--memory", "1k", "--memory must be 1m at least, not '1k'"),
        ("--timeout", "5", "--timeout must look like 30s, 5m, 2h or 7d, not '5'"),
        ("--idle", "-5s", "--idle must look like 30s, 5m, 2h or 7d, not '-5s'"),
    ],
)
def test_a_wrong_amount_is_misuse(atoll: Atoll, server: StandIn, option: str, text: str, said: str) -> None:
    done = atoll("run", option, text, "--", "true")
    assert (done.returncode, done.stderr) == (2, f"atoll: {said}\n")
    assert not server.routes.boxes


def test_what_is_no_number_of_cpus_is_said(atoll: Atoll, server: StandIn) -> None:
    done = atoll("run", "--cpus", "nan", "--", "true")
    assert (done.returncode, done.stderr) == (125, "atoll: --cpus must be a number such as 0.5, not nan\n")
    atoll("run", "-d", "--cpus", "-1", "--", "true")
    (box,) = server.routes.boxes.values()
    assert box.body["resources"] == {"cpuMillis": 1}  # which the server refuses with its bounds


def test_a_port_needs_a_network_that_is_exposed(atoll: Atoll, server: StandIn) -> None:
    done = atoll("run", "--network", "none", "--publish", "80", "--", "true")
    assert (done.returncode, done.stderr) == (2, "atoll: --publish needs --network exposed, not none\n")
    atoll("run", "--publish", "80", "--", "true")
    (box,) = server.routes.boxes.values()
    assert box.body["network"] == "exposed"


def test_an_exec_that_ran_into_its_timeout_says_so(atoll: Atoll) -> None:
    atoll("run", "-d", "--name", "box", "--", "sleep", "60")
    for command in ("sleep 50", "trap '' TERM; sleep 50"):
        done = atoll("exec", "--timeout", "300ms", "box", "--", "sh", "-c", command)
        assert (done.returncode, done.stderr) == (124, "atoll: the command has ended: timeout\n")
    assert atoll("exec", "--timeout", "20s", "box", "--", "sh", "-c", "kill $$").returncode == 143
    said = json.loads(atoll("exec", "--json", "--timeout", "300ms", "box", "--", "sleep", "50").stdout)
    assert (said["exit_code"], said["timed_out"]) == (124, True)


def test_a_sandbox_that_is_not_found_is_a_failure_of_ours(atoll: Atoll) -> None:
    for words in (("exec", "zzz", "--", "true"), ("shell", "zzz"), ("attach", "zzz")):
        done = atoll(*words)
        assert (done.returncode, done.stderr) == (125, "atoll: there is no sandbox zzz: `atoll ps -a` lists them\n")
    ids = [atoll("run", "-d", "--name", "two", "--", "sleep", "60").stdout.strip() for _ in range(2)]
    done = atoll("exec", "two", "--", "true")
    assert done.returncode == 125
    assert "2 live sandboxes are called two: use an id" in done.stderr
    assert all(one in done.stderr for one in ids)


def test_a_failure_of_ours_is_125_and_one_line(atoll: Atoll, server: StandIn) -> None:
    done = atoll("run", "--image", "nonesuch", "--", "true")
    assert (done.returncode, done.stderr) == (125, "atoll: no such image\n")
    atoll.environment["ATOLL_API_KEY"] = "sk_wrong"
    done = atoll("run", "--", "true")
    assert done.returncode == 125
    assert "a valid API key is required" in done.stderr


def test_a_cut_in_the_middle_of_output_loses_and_doubles_nothing(atoll: Atoll, proxy: CuttingProxy) -> None:
    atoll.environment["ATOLL_URL"] = proxy.url
    proxy.cuts = [5_000, 90_000]
    done = atoll("run", "--rm", "--", "sh", "-c", MANY_LINES)
    assert hashlib.sha256(done.stdout.encode()).digest() == hashlib.sha256(MANY_LINES_TEXT).digest()
    assert proxy.streams == 3
    assert done.stderr == ""


def test_ctrl_c_goes_to_the_command(atoll: Atoll) -> None:
    command = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    running = atoll.start(
        "run",
        "--rm",
        "--",
        "sh",
        "-c",
        command,
    )
    assert running.stdout
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=20)
    assert (out, running.returncode) == (b"caught\n", 5)


def test_a_third_ctrl_c_leaves_a_command_that_will_not_end(atoll: Atoll, server: StandIn) -> None:
    command = "trap '' INT; echo ready; while :; do sleep 0.1; done"
    running = atoll.start("run", "--", "sh", "-c", command)
    assert running.stdout
    running.stdout.readline()
    for _ in range(3):
        running.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, err = running.communicate(timeout=20)
    (box,) = server.routes.boxes.values()
    assert f"atoll attach {box.id}" in err.decode()
    assert box.status == "running"


def test_a_reader_that_has_seen_enough_ends_it_all(atoll: Atoll, server: StandIn) -> None:
    running = atoll.start("run", "--rm", "--", "yes")
    assert running.stdout
    running.stdout.readline()
    running.stdout.close()
    assert running.wait(20) == 128 + signal.SIGPIPE
    assert running.stderr
    assert running.stderr.read() == b""
    running.stderr.close()
    assert server.routes.boxes == {}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fb", "workspace not found: 'fb': `atoll workspace create fb` makes it"),
        ("bob/fb", "workspace not found: 'bob/fb'"),
        ("ws_" + "0" * 32, f"workspace not found: 'ws_{'0' * 32}'"),
    ],
)
def test_a_workspace_that_is_not_there_is_told_with_what_makes_one(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def create(**_: Any) -> None:
        raise NotFound(f"workspace not found: {name!r}")

    monkeypatch.setattr(AsyncSandbox, "create", create)
    with pytest.raises(typer.Exit) as ended:
        run.run(["true"], workspace=[name])
    assert (ended.value.exit_code, capsys.readouterr().err) == (125, f"atoll: {told}\n")
