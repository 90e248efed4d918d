from __future__ import annotations

import hashlib
import re
import time

import pytest

from atoll import Sandbox
from atoll.sdk import ConnectionFailed, DeadlineExceeded, Process
from tests.sdk.cutting_proxy import CuttingProxy
from tests.sdk.stand_in import StandIn

MANY_LINES = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
MANY_LINES_TEXT = "".join(f"line {i}\n" for i in range(20_000)).encode()


def everything(process: Process) -> bytes:
    return b"".join(chunk.data for chunk in process)


def test_a_process_is_iterated_with_its_streams_apart(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.exec("echo out; sleep 0.1; echo err >&2; exit 3") as process:
        chunks = list(process)
        assert [(chunk.stream, chunk.data) for chunk in chunks] == [("stdout", b"out\n"), ("stderr", b"err\n")]
        assert process.exit_code == 3
        assert process.offset == 8
        assert process.id


def test_a_conversation_with_a_process(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.exec(["cat"]) as process:
        process.write("one\n")
        chunk = process.read(5)
        assert chunk is not None
        assert chunk.data == b"one\n"
        with pytest.raises(TimeoutError):
            process.read(0.05)
        process.write(b"two")
        process.close_stdin()
        assert everything(process) == b"two"
        assert process.wait().code == 0


def test_wait_gives_up_in_time_and_leaves_the_process_alone(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.exec(["sleep", "30"]) as process:
        with pytest.raises(DeadlineExceeded):
            process.wait(0.1)
        process.kill()
        end = process.wait(5)
        assert (end.code, end.signal) == (137, 9)


def test_a_timeout_of_a_stream_is_the_servers(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.exec(["sleep", "30"], timeout=0.2) as process:
        assert process.wait(5).timed_out


def test_no_input_is_an_end_of_input(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.exec(["cat"], stdin=False) as process:
        assert process.wait(5).code == 0


def test_a_terminal_echoes_and_knows_its_size(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.terminal(100, 30) as terminal:
        terminal.write("stty size\n")
        seen = b""
        while b"30 100" not in seen:
            chunk = terminal.read(5)
            assert chunk is not None
            seen += chunk.data
        terminal.resize(120, 40)
        terminal.write("stty size; exit 5\n")
        assert b"40 120" in everything(terminal)
        assert terminal.exit_code == 5


def test_detaching_leaves_the_process_running_and_attaching_finds_its_output(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        with sandbox.exec("echo one; sleep 0.3; echo two") as process:
            assert process.read(5) is not None
        with sandbox.attach(process.id) as again:
            assert everything(again) == b"one\ntwo\n"
        with sandbox.attach(process.id, offset=4) as tail:
            assert everything(tail) == b"two\n"
        assert [info.id for info in sandbox.processes()] == [process.id]


@pytest.mark.parametrize("cuts", [[400], [1000, 5000, 300], [40_000, 40_001, 1_000, 60_000]])
def test_output_survives_cuts_in_the_middle_whole_and_once(
    server: StandIn, proxy: CuttingProxy, cuts: list[int]
) -> None:
    proxy.cuts = list(cuts)
    with Sandbox.create() as sandbox, sandbox.exec(MANY_LINES) as process:
        seen = everything(process)
    assert hashlib.sha256(seen).digest() == hashlib.sha256(MANY_LINES_TEXT).digest()
    assert process.offset == len(MANY_LINES_TEXT)
    assert process.lost_bytes == 0
    assert proxy.streams == 1 + len(cuts)


def test_a_replay_that_begins_too_early_is_not_seen_twice(
    server: StandIn, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atoll.sdk._sync import process as module

    real = module._attach_target
    monkeypatch.setattr(module, "_attach_target", lambda box, name, offset: real(box, name, offset // 2))
    proxy.cuts = [50_000]
    with Sandbox.create() as sandbox, sandbox.exec(MANY_LINES) as process:
        assert everything(process) == MANY_LINES_TEXT


def test_output_that_is_gone_is_counted_as_lost(
    server: StandIn, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atoll.sdk._sync import process as module

    real = module._attach_target
    monkeypatch.setattr(module, "_attach_target", lambda box, name, offset: real(box, name, offset + 1000))
    proxy.cuts = [50_000]
    with Sandbox.create() as sandbox, sandbox.exec(MANY_LINES) as process:
        assert len(everything(process)) == len(MANY_LINES_TEXT) - 1000
    assert process.lost_bytes == 1000


def test_a_stream_goes_on_when_the_server_comes_back(server: StandIn) -> None:
    heard: list[bool] = []
    with Sandbox.create() as sandbox, sandbox.exec(["cat"]) as process:
        process.on_reconnect = heard.append
        process.write("before\n")
        assert process.read(5) is not None
        server.stop()
        time.sleep(0.2)
        server.start()
        process.write("after\n")
        chunk = process.read(5)
        assert chunk is not None
        assert chunk.data == b"after\n"
        assert heard == [False, True]


def test_writing_to_a_process_that_has_ended_unread_does_not_hang(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.exec(["true"]) as process:
        time.sleep(0.3)
        for _ in range(5):
            process.write("nobody reads this\n")
        assert process.wait(10).code == 0


def test_without_reconnecting_the_end_of_a_process_is_read_after_a_write_that_came_too_late(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.exec(["sh", "-c", "exit 3"]) as process:
        process.reconnect_s = 0
        time.sleep(0.3)
        with pytest.raises(ConnectionFailed):
            for _ in range(5):
                process.write("nobody reads this\n")
        assert process.wait(10).code == 3


def test_a_server_that_stays_away_is_given_up(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        process = sandbox.exec(["cat"])
        process.reconnect_s = 0.3
        server.stop()
        began = time.monotonic()
        with pytest.raises(ConnectionFailed):
            process.read(5)
        assert 0.1 < time.monotonic() - began < 3
        server.start()


def test_a_size_set_before_a_cut_holds_after_it(server: StandIn, proxy: CuttingProxy) -> None:
    with Sandbox.create() as sandbox, sandbox.terminal(80, 24) as terminal:
        terminal.resize(90, 20)
        proxy.cut_all()
        time.sleep(0.2)  # input that is sent before the cut is known may be lost
        terminal.write("stty size; exit\n")
        assert re.search(rb"20 90", everything(terminal))


def test_a_single_word_stays_one_word(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        sandbox.files.write("/my program", "#!/bin/sh\necho ran\n", mode=0o755)
        with sandbox.exec(["./my program"]) as process:
            assert everything(process) == b"ran\n"


def test_a_missing_program_ends_with_127(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.exec(["no-such-program"]) as process:
        assert b"not found" in everything(process)
        assert process.exit_code == 127
