from __future__ import annotations

import os
import signal
import time

from tests.cli.conftest import Atoll
from tests.sdk.stand_in import StandIn

PROMPT = "ready> "
SHELL = ("sh", "-c", f"PS1='{PROMPT}' exec sh -i")


def test_a_terminal_is_raw_sized_and_given_back(atoll: Atoll) -> None:
    terminal = atoll.on_terminal("run", "--rm", "-it", "--", *SHELL, size=(97, 31))
    terminal.expect(PROMPT)
    assert terminal.raw
    terminal.type("stty size\n")
    terminal.expect("31 97")
    terminal.resize(120, 40)
    # what is typed may overtake the news of the window's size
    terminal.type("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo resi'zed'\n")
    terminal.expect("resized\r")
    terminal.type("exit 6\n")
    assert terminal.wait() == 6
    assert terminal.restored


def test_ctrl_c_and_ctrl_d_are_typed_not_ours(atoll: Atoll) -> None:
    terminal = atoll.on_terminal("run", "--rm", "-it", "--", *SHELL)
    terminal.expect(PROMPT)
    terminal.type("sleep 60\n")
    time.sleep(0.3)
    terminal.type(b"\x03")
    terminal.expect(PROMPT)
    terminal.type(b"\x04")
    assert terminal.wait() in (0, 130)


def test_a_session_goes_on_when_the_server_comes_back(atoll: Atoll, server: StandIn) -> None:
    terminal = atoll.on_terminal("run", "--rm", "-it", "--", *SHELL)
    terminal.expect(PROMPT)
    terminal.type("X=kept; echo se''t\n")
    terminal.expect("set")
    server.stop()
    terminal.expect("connection lost")
    server.start()
    terminal.expect("connected again")
    terminal.type("echo it is $X\n")
    terminal.expect("it is kept")
    terminal.type("exit\n")
    assert terminal.wait() == 0
    assert terminal.screen.count(b"set") == 1


def test_ctrl_c_ends_the_waiting_for_a_server_that_is_gone(atoll: Atoll, server: StandIn) -> None:
    terminal = atoll.on_terminal("run", "-it", "--", *SHELL)
    terminal.expect(PROMPT)
    server.stop()
    terminal.expect("connection lost")
    terminal.type(b"\x03")
    terminal.expect("goes on: atoll attach sess_")
    assert terminal.wait() == 0
    assert terminal.restored
    server.start()


def test_tilde_dot_leaves_and_attach_comes_back(atoll: Atoll, server: StandIn) -> None:
    terminal = atoll.on_terminal("run", "-it", "--name", "box", "--", *SHELL)
    terminal.expect(PROMPT)
    terminal.type("echo here ~. still\n")
    terminal.expect("here ~. still")
    terminal.expect(PROMPT)
    terminal.type("\r~.")
    terminal.expect("goes on")
    assert terminal.wait() == 0
    again = atoll.on_terminal("attach", "box")
    again.expect("here ~. still")
    again.type("\nexit 3\n")
    assert again.wait() == 3


def test_a_hangup_gives_the_terminal_back(atoll: Atoll) -> None:
    terminal = atoll.on_terminal("run", "--rm", "-it", "--", *SHELL)
    terminal.expect(PROMPT)
    os.kill(terminal.pid, signal.SIGTERM)
    terminal.wait()
    assert terminal.restored


def test_closing_the_window_leaves_the_shell_running(atoll: Atoll) -> None:
    terminal = atoll.on_terminal("run", "-it", "--name", "box", "--", *SHELL)
    terminal.expect(PROMPT)
    terminal.hang_up()
    terminal.wait()
    again = atoll.on_terminal("attach", "box")
    again.expect(PROMPT)
    again.type("echo still $((6 * 7))\n")
    again.expect("still 42")


def test_exec_and_shell_in_a_sandbox_that_exists(atoll: Atoll, server: StandIn) -> None:
    box = atoll("run", "-d", "--name", "box", "--", "sleep", "100").stdout.strip()
    terminal = atoll.on_terminal("exec", "-it", "box", "--", *SHELL)
    terminal.expect(PROMPT)
    terminal.type("exit 4\n")
    assert terminal.wait() == 4
    shell = atoll.on_terminal("shell", box)
    shell.type("echo $((6 * 7)); exit 2\n")
    shell.expect("42")
    assert shell.wait() == 2


def test_a_shell_without_a_sandbox_makes_one_for_the_while(atoll: Atoll, server: StandIn) -> None:
    terminal = atoll.on_terminal("shell")
    terminal.type("echo $((6 * 7))\n")
    terminal.expect("42")
    assert len(server.routes.boxes) == 1
    terminal.type("exit\n")
    assert terminal.wait() == 0
    assert server.routes.boxes == {}
