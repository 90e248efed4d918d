from __future__ import annotations

import json
import subprocess
import time

from tests.cli.conftest import Atoll
from tests.sdk.stand_in import StandIn

NAMES = "run exec shell attach ps logs stop kill rm cp template up down doctor keys db version".split()  # noqa: SIM905


def test_ps_lists_the_living_and_with_all_the_dead(atoll: Atoll) -> None:
    alive = atoll("run", "-d", "--name", "alive", "--", "sleep", "60").stdout.strip()
    dead = atoll("run", "-d", "--name", "dead", "--", "true").stdout.strip()
    time.sleep(0.3)
    assert atoll("ps", "-q").stdout.split() == [alive]
    assert set(atoll("ps", "-aq").stdout.split()) == {alive, dead}
    table = atoll("ps", "-a").stdout
    assert "alive" in table
    assert "sleep 60" in table
    assert "stopped (0) exited" in table
    shown = json.loads(atoll("ps", "--json").stdout)
    assert [one["id"] for one in shown] == [alive]
    assert shown[0]["usage"]["memoryPeakBytes"] == 2**20


def test_ps_tells_the_paused_from_the_running(atoll: Atoll, server: StandIn) -> None:
    atoll("run", "-d", "--", "sleep", "60")
    assert " running " in atoll("ps").stdout
    next(iter(server.routes.boxes.values())).paused = True
    table = atoll("ps").stdout
    assert " paused " in table
    assert " running " not in table


def test_a_table_in_a_pipe_is_one_line_each(atoll: Atoll) -> None:
    atoll.environment["COLUMNS"] = "20"
    atoll("run", "-d", "--name", "a" * 60, "--", "sleep", "60")
    lines = atoll("ps").stdout.splitlines()
    assert len(lines) == 2
    assert "a" * 60 in lines[1]


def test_exec_passes_input_output_and_code(atoll: Atoll) -> None:
    atoll("run", "-d", "--name", "box", "--", "sleep", "60")
    done = atoll("exec", "-e", "A=1", "box", "--", "sh", "-c", "cat; echo $A >&2; exit 9", stdin="in")
    assert (done.stdout, done.stderr, done.returncode) == ("in", "1\n", 9)


def test_a_detached_exec_can_be_attached(atoll: Atoll) -> None:
    atoll("run", "-d", "--name", "box", "--", "sleep", "60")
    process = atoll("exec", "-d", "box", "--", "sh", "-c", "echo one; sleep 0.5; echo two; exit 3").stdout.strip()
    done = atoll("attach", "box", "--process", process)
    assert (done.stdout, done.returncode) == ("one\ntwo\n", 3)


def test_logs_follow_until_the_end(atoll: Atoll, server: StandIn) -> None:
    waits = "echo one; until [ -e go ]; do sleep 0.1; done; echo two"
    made = atoll("run", "-d", "--name", "box", "--", "sh", "-c", waits).stdout.strip()
    assert atoll("logs", "box").stdout == "one\n"
    (server.routes.boxes[made].root / "go").touch()
    assert atoll("logs", "-f", "box").stdout == "one\ntwo\n"
    assert atoll("logs", "--offset", "4", "box").stdout == "two\n"


def test_followed_logs_end_quietly_with_ctrl_c(atoll: Atoll) -> None:
    atoll("run", "-d", "--name", "box", "--", "sh", "-c", "echo one; sleep 60")
    running = atoll.start("logs", "-f", "box")
    assert running.stdout
    assert running.stdout.readline() == b"one\n"
    running.send_signal(2)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert b"Traceback" not in err


def test_stop_kill_and_rm(atoll: Atoll, server: StandIn) -> None:
    ids = [atoll("run", "-d", "--", "sleep", "60").stdout.strip() for _ in range(3)]
    assert atoll("stop", ids[0]).stdout.split() == [ids[0]]
    assert atoll("kill", ids[1], ids[0]).stdout.split() == [ids[1], ids[0]]
    assert [server.routes.boxes[one].status for one in ids] == ["stopped", "killed", "running"]
    done = atoll("rm", ids[2])
    assert done.returncode == 1
    assert "use --force" in done.stderr
    assert atoll("rm", "--force", *ids).stdout.split() == ids
    assert server.routes.boxes == {}


def test_json_on_what_ends_sandboxes_and_on_logs(atoll: Atoll) -> None:
    ids = [atoll("run", "-d", "--", "sh", "-c", "echo said; sleep 60").stdout.strip() for _ in range(2)]
    assert json.loads(atoll("logs", "--json", ids[0]).stdout) == {"id": ids[0], "offset": 0, "output": "said\n"}
    assert json.loads(atoll("stop", "--json", ids[0]).stdout) == {"id": ids[0], "done": "stopped"}
    lines = atoll("rm", "-f", "--json", *ids).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"id": one, "done": "removed"} for one in ids]


def test_a_sandbox_goes_by_its_name_or_the_beginning_of_its_id(atoll: Atoll) -> None:
    box = atoll("run", "-d", "--name", "mine", "--", "sleep", "60").stdout.strip()
    for name in (box, "mine", box[:12], box.removeprefix("sess_")[:8]):
        assert atoll("exec", name, "--", "echo", "found").stdout == "found\n"
    done = atoll("exec", "yours", "--", "true")
    assert done.returncode != 0
    assert "there is no sandbox yours" in done.stderr
    atoll("run", "-d", "--name", "mine", "--", "sleep", "60")
    assert "2 live sandboxes are called mine" in atoll("stop", "mine").stderr


def test_templates_are_listed(atoll: Atoll) -> None:
    assert "host" in atoll("template", "ls").stdout
    assert json.loads(atoll("template", "ls", "--json").stdout)[0]["name"] == "host"


def test_no_server_is_said_in_one_line(atoll: Atoll, server: StandIn) -> None:
    server.stop()
    done = atoll("ps")
    server.start()
    assert done.returncode == 1
    assert done.stderr.startswith("atoll: no connection to the Atoll server")
    assert done.stderr.count("\n") == 1


def test_a_word_that_is_no_command_gets_a_suggestion(atoll: Atoll) -> None:
    done = atoll("rnu")
    assert done.returncode == 2
    assert "run" in done.stderr


def test_help_names_every_command_and_version_is_short(atoll: Atoll) -> None:
    text = atoll("--help").stdout
    for name in NAMES:
        assert f" {name} " in text
    assert atoll("--version").stdout == "0.1.0\n"
    assert json.loads(atoll("version", "--json").stdout)["atoll"] == "0.1.0"


def test_commands_of_the_client_load_no_server(atoll: Atoll) -> None:
    program = (
        "import sys; from atoll.cli import main; main.application(['run']); import atoll.sdk._async.sandbox\n"
        "heavy = {'pydantic', 'fastapi', 'starlette', 'sqlalchemy', 'uvicorn', 'httpx2', 'rich.table', 'structlog'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [atoll.start.__globals__["ATOLL"][0], "-c", program], capture_output=True, env=atoll.environment
    )
    assert done.stdout == b"[]\n", done.stderr
