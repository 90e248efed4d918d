"""The server dies, by force or on request, and comes back: sandboxes, shells, commands and their output are there."""

from __future__ import annotations

import json
import re
import signal
import threading
import time

import pytest

from tests.e2e.machine import until
from tests.e2e.server import Server, drain
from tests.e2e.terminal import Terminal

BOTH_WAYS = pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill9", "term"])


@BOTH_WAYS
def test_run_it_bash_is_the_same_shell_after_a_restart(mortal: Server, how: signal.Signals) -> None:
    server = mortal
    with Terminal(server, "run", "-it", "--", "bash") as terminal:
        terminal.expect(r"\$ ")
        terminal.type("secret=$((6*7)); cd /tmp; echo pid=$$\n")
        pid = terminal.expect(r"\bpid=(\d+)\r")[1]
        server.end(how)
        terminal.expect("connection lost")
        server.start()
        terminal.expect("connected again")
        terminal.type('echo "still $secret $$ $PWD"\n')
        assert terminal.expect(r"still (\d+ \d+ \S+)\r")[1] == b"42 " + pid + b" /tmp"
        terminal.type("stty size\n")
        terminal.expect(r"30 100")
        terminal.resize(77, 22)
        # what is typed may overtake the news of the window's size
        terminal.type("until [ \"$(stty size)\" = '22 77' ]; do sleep 0.1; done; echo resi'zed'\n")
        terminal.expect("resized\r")
        terminal.type("exit 3\n")
        assert terminal.ended() == 3
    newest = server.sessions()[0]
    assert (newest["status"], newest["exitCode"]) == ("stopped", 3)


@BOTH_WAYS
def test_a_shell_command_reconnects_too(mortal: Server, how: signal.Signals) -> None:
    server = mortal
    sandbox = server.create()
    with Terminal(server, "shell", sandbox) as terminal:
        terminal.expect(r"\$ ")
        terminal.type("kept=here\n")
        terminal.expect(r"kept=here\r\n")
        server.end(how)
        terminal.expect("connection lost")
        server.start()
        terminal.expect("connected again")
        terminal.type("echo is:$kept\n")
        terminal.expect("is:here\r")
        terminal.type("exit\n")
        assert terminal.ended() == 0


@BOTH_WAYS
def test_output_of_a_command_across_a_restart_is_whole(mortal: Server, how: signal.Signals) -> None:
    """Lines with numbers, faster than one reads them: none is lost and none comes twice, on both streams."""
    server = mortal
    sandbox = server.create()
    program = (
        "import sys,time\n"
        "for i in range(3000):\n"
        "    print(i, flush=True)\n"
        "    if i % 10 == 0: print('e', i, file=sys.stderr, flush=True)\n"
        "    time.sleep(0.002)\n"
        "sys.exit(5)\n"
    )
    command = server.spawn_cli("exec", sandbox, "python3", "-c", program)
    until(lambda: server.session(sandbox)["usage"]["bytesOut"] > 2000, what="output flows")
    server.end(how)
    server.start()
    stdout, stderr = command.communicate(timeout=40)
    assert command.returncode == 5
    assert stdout.split() == [str(i).encode() for i in range(3000)]
    told = [line for line in stderr.splitlines() if line.startswith(b"e ")]
    assert told == [b"e %d" % i for i in range(0, 3000, 10)]


def test_output_written_while_the_server_is_down_is_there(mortal: Server) -> None:
    server = mortal
    sandbox = server.create(["sh", "-c", "echo before; sleep 1.5; echo between; read line; echo after $line; exit 9"])
    stream = server.stream(sandbox, "sh", "-c", "sleep 1; echo from exec; sleep 100")
    process = stream.response.headers["atoll-process"]  # type: ignore[union-attr]
    server.kill()
    time.sleep(2.0)
    server.start()
    with server.attach(sandbox, process) as again:
        assert again.recv(10)[5:] == b"from exec\n"
    main = server.attach(sandbox)
    told = b""
    while len(told) < len(b"before\nbetween\n"):  # in one frame or in several
        told += main.recv(10)[5:]
    assert told == b"before\nbetween\n"
    main.send(b"\x01\x00\x00\x00\x05line\n")
    stdout, _, code = drain(main)
    assert (stdout, code) == (b"after line\n", 9)
    stream.close()
    until(lambda: server.session(sandbox)["status"] == "stopped")
    assert server.session(sandbox)["exitCode"] == 9


def test_what_ended_while_the_server_was_down_is_recorded(mortal: Server) -> None:
    server = mortal
    exits = server.create(["sh", "-c", "echo bye; sleep 1; exit 4"])
    times_out = server.create(["sleep", "100"], resources={"timeoutMs": 1500})
    lives = server.create(["sleep", "100"])
    server.kill()
    time.sleep(2.0)
    server.start()
    until(lambda: server.session(exits)["status"] == "stopped")
    until(lambda: server.session(times_out)["status"] == "killed")
    assert server.session(exits)["exitCode"] == 4
    assert server.session(times_out)["reason"] == "timeout"
    assert server.session(lives)["status"] == "running"
    assert server.http.get(f"/v1/sessions/{exits}/logs").text == "bye\n"
    until(lambda: server.machine.sandbox_folders() == {lives})


def test_terminals_are_told_to_come_back_when_the_server_is_replaced(mortal: Server) -> None:
    """SIGTERM closes streams with 1012, and an open request gets to finish."""
    from websockets.exceptions import ConnectionClosed

    server = mortal
    sandbox = server.create()
    stream = server.stream(sandbox, "cat")
    answers: list[int] = []

    def run() -> None:
        with server.client() as client:
            answer = client.post(f"/v1/sessions/{sandbox}/exec", json={"command": ["sleep", "1"]})
            answers.append(answer.status_code)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: server.session(sandbox)["usage"]["execCount"] == 2)
    server.end(signal.SIGTERM)
    with pytest.raises(ConnectionClosed) as closed:
        stream.recv(10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    thread.join(10)
    assert answers == [200]
    server.start()
    assert server.session(sandbox)["status"] == "running"


def test_ports_keep_their_numbers(mortal: Server) -> None:
    import httpx2

    server = mortal
    sandbox = server.create(["python3", "-m", "http.server", "8000"], network="exposed", ports=[{"container": 8000}])
    url = server.http.get(f"/v1/sessions/{sandbox}/url", params={"port": 8000}).json()["url"]

    def fetched() -> bool:
        try:
            return httpx2.get(url, timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    until(fetched, what=url)
    server.kill()
    assert not fetched()
    server.start()
    assert server.http.get(f"/v1/sessions/{sandbox}/url", params={"port": 8000}).json()["url"] == url
    until(fetched, within_s=2)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)


def test_the_sidekick_api_finds_its_commands_and_terminals_again(mortal: Server) -> None:
    server = mortal
    daemon = f"/sb/{server.create()}"
    begun = server.http.post(f"{daemon}/run/command", json={"command": "sleep 1; echo late", "background": True})
    command = begun.json()["data"]
    terminal = server.http.post(f"{daemon}/terminals", json={"pty": True}).json()["data"]
    told(server, daemon, terminal, "kept=$((40 + 2))\n", "kept=")
    server.end(signal.SIGKILL)
    server.start()
    listed = server.http.get(f"{daemon}/terminals").json()["data"]["terminals"]
    assert [one["id"] for one in listed if one["pty"]] == [terminal["id"]]
    assert "is:42" in told(server, daemon, terminal, "echo is:$kept\n", "is:42")
    path = f"{daemon}/terminals/{command['terminal_id']}/commands/{command['cmd_id']}"
    ended = server.http.get(f"{path}/wait?timeout=20").json()["data"]
    assert (ended["stdout"], ended["exit_code"], ended["status"]) == ("late\n", 0, "completed")


def told(server: Server, daemon: str, terminal: dict[str, str], typed: str, expected: str) -> str:
    """What a terminal tells until that stands there, from the beginning of what it still has."""
    output = ""
    with server.socket(f"{daemon}/ws") as socket:
        for message in (
            {"type": "subscribe", "channel": terminal["channel"]},
            {"type": "terminal:input", "data": {"terminal_id": terminal["id"], "input": typed}},
        ):
            socket.send(json.dumps(message))
        while expected not in output:
            message = json.loads(socket.recv(timeout=20))
            if message["type"] == "terminal:output":
                output += message["data"]["output"]
    return output
