from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from atoll import Sandbox
from atoll.sdk import (
    AtollError,
    CommandFailed,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Unauthenticated,
)
from tests.sdk.cutting_proxy import CuttingProxy
from tests.sdk.stand_in import StandIn


def test_a_string_runs_in_a_shell_and_a_list_as_it_is(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        assert sandbox.run("echo $((20 + 3))").stdout == "23\n"
        assert sandbox.run(["echo", "$((20 + 3))"]).stdout == "$((20 + 3))\n"


def test_a_result_tells_streams_and_exit_code_apart(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        result = sandbox.run("echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit_code, result.ok) == ("out\n", "err\n", 7, False)
    assert result.signal is None
    assert result.duration_s > 0


def test_output_bytes_are_exact_even_when_they_are_no_text(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        result = sandbox.run(["printf", r"\377\000\303"])
    assert result.stdout_bytes == b"\xff\x00\xc3"
    assert result.stdout == "�\x00�"


def test_environment_directory_and_input_reach_the_command(server: StandIn) -> None:
    with Sandbox.create(env={"A": "1"}) as sandbox:
        sandbox.files.mkdir("/deep")
        result = sandbox.run("cat; echo $A$B; pwd", env={"B": "2"}, cwd="/deep", stdin="in\n")
    assert result.stdout.startswith("in\n12\n")
    assert result.stdout.rstrip().endswith("deep")


def test_a_signal_is_told_apart_from_an_exit(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        result = sandbox.run("kill -SEGV $$")
    assert (result.exit_code, result.signal) == (139, signal.SIGSEGV)


def test_a_timeout_kills_the_command_and_says_so(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        began = time.monotonic()
        result = sandbox.run("echo early; sleep 30", timeout=0.3)
        assert time.monotonic() - began < 5
    assert result.timed_out
    assert result.stdout == "early\n"


def test_check_raises_with_the_result_inside(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        assert sandbox.run("true", check=True).ok
        with pytest.raises(CommandFailed, match="exited with 3: no luck") as caught:
            sandbox.run("echo no luck >&2; exit 3", check=True)
    assert caught.value.result.exit_code == 3


def test_output_beyond_the_limit_is_cut_and_said_to_be(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        result = sandbox.run("head -c 5000 /dev/zero", max_output_bytes=100)
        assert (len(result.stdout_bytes), result.truncated) == (100, True)
        streamed = sandbox.run("head -c 5000 /dev/zero", max_output_bytes=100, on_stdout=lambda text: None)
        assert (len(streamed.stdout_bytes), streamed.truncated) == (100, True)


def test_callbacks_get_the_text_as_it_comes_with_characters_whole(server: StandIn) -> None:
    out: list[str] = []
    err: list[str] = []
    with Sandbox.create() as sandbox:
        command = r"printf 'a\303'; sleep 0.2; printf '\244b'; printf e >&2; read line; echo $line; exit 4"
        result = sandbox.run(command, stdin="given\n", on_stdout=out.append, on_stderr=err.append)
    assert len(out) >= 2
    assert "".join(out) == result.stdout == "aäbgiven\n"
    assert "".join(err) == result.stderr == "e"
    assert result.exit_code == 4


def test_much_input_and_output_at_once_do_not_block_each_other(server: StandIn) -> None:
    data = os.urandom(4 << 20).hex()
    with Sandbox.create() as sandbox:
        result = sandbox.run(["cat"], stdin=data, on_stdout=lambda text: None)
    assert result.stdout == data


def test_leaving_the_block_kills_it_also_when_it_has_ended_or_is_gone(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        pass
    assert sandbox.info().state == "killed"
    with Sandbox.create(command="true") as sandbox:
        sandbox.attach().wait()
    assert sandbox.info().state == "stopped"
    with Sandbox.create() as sandbox:
        sandbox.kill(remove=True)
    with pytest.raises(NotFound):
        sandbox.info()


def test_info_tells_what_was_asked_for_and_used(server: StandIn) -> None:
    with Sandbox.create(name="mine", command=["sleep", "30"], network="none") as sandbox:
        info = sandbox.info()
        assert (info.id, info.name, info.state, info.image, info.live) == (sandbox.id, "mine", "running", "host", True)
        assert info.command == ("sleep", "30")
        assert info.network == "none"
        assert info.usage.memory_peak_bytes == 2**20
        assert info.created_at is not None


def test_arguments_travel_in_the_units_of_the_wire(server: StandIn) -> None:
    with Sandbox.create(
        cpus=0.5, memory_mb=64, timeout=1.5, idle_timeout=60, max_age=90, pids=9, disk_mb=5, inodes=700,
        ports=[8000], setup=["true"], files={"/a": "t", "/b": b"\xff"}, cwd="/",
    ) as sandbox:  # fmt: skip
        body = server.routes.boxes[sandbox.id].body
        assert sandbox.url(8000) == "http://127.0.0.1:8000"
        with pytest.raises(NotFound):
            sandbox.url(8001)
    assert body["resources"] == {
        "cpuMillis": 500, "memoryMB": 64, "timeoutMs": 1500, "idleMs": 60_000, "maxAgeMs": 90_000, "pids": 9,
        "diskMB": 5, "inodes": 700,
    }  # fmt: skip
    assert body["network"] == "exposed"
    assert body["ports"] == [{"container": 8000}]
    assert body["files"] == [{"path": "/a", "content": "t"}, {"path": "/b", "content": "/w==", "encoding": "base64"}]
    assert body["setup"] == ["true"]


def test_the_network_is_closed_unless_asked_for(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        assert server.routes.boxes[sandbox.id].body["network"] == "none"


def test_connect_and_list_find_what_exists(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        assert Sandbox.connect(sandbox.id).run("echo hi").stdout == "hi\n"
        assert [info.id for info in Sandbox.list(state="running")] == [sandbox.id]
    assert Sandbox.list(state="running") == []
    assert [info.id for info in Sandbox.list()] == [sandbox.id]
    with pytest.raises(NotFound, match="session not found"):
        Sandbox.connect("sess_000000000000")
    assert [template.name for template in Sandbox.templates()] == ["host"]


def test_errors_have_the_servers_own_classes(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput) as caught:
        Sandbox.create("nonesuch")
    assert caught.value.field == "image"
    with Sandbox.create() as sandbox:
        sandbox.stop()
        with pytest.raises(Conflict, match="session not running: status=stopped"):
            sandbox.run("true")
        with pytest.raises(Conflict):
            sandbox.exec("true")
    monkeypatch.setenv("ATOLL_API_KEY", "sk_wrong")
    with pytest.raises(Unauthenticated):
        Sandbox.create()


def test_a_server_that_is_not_there_is_connection_failed(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        server.stop()
        with pytest.raises(ConnectionFailed, match=str(server.port)):
            sandbox.run("true")
        server.start()
        assert sandbox.run("true").ok


def test_a_kept_connection_that_the_server_closed_is_not_used_again(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        for _ in range(3):
            sandbox.run("true")
            server.stop()
            server.start()


def test_requests_share_connections(server: StandIn) -> None:
    from atoll.sdk._io import connections

    with Sandbox.create() as sandbox:
        for _ in range(5):
            sandbox.run("true")
        assert len(connections(tls=False).pool.connections) == 1


def test_many_threads_share_one_sandbox(server: StandIn) -> None:
    with Sandbox.create() as sandbox, ThreadPoolExecutor(16) as threads:
        outputs = list(threads.map(lambda n: sandbox.run(["echo", str(n)]).stdout, range(64)))
    assert outputs == [f"{n}\n" for n in range(64)]


def test_a_forked_child_has_connections_of_its_own(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        sandbox.run("true")
        child = os.fork()
        if child == 0:
            os._exit(0 if sandbox.run("echo child").stdout == "child\n" else 1)
        assert sandbox.run("echo parent").stdout == "parent\n"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_finds_an_open_stream_again_by_a_connection_of_its_own(server: StandIn) -> None:
    with Sandbox.create() as sandbox, sandbox.exec(["cat"]) as process:
        child = os.fork()
        if child == 0:
            process.write("child\n")
            chunk = process.read(5)
            process.close()
            os._exit(0 if chunk is not None and chunk.data == b"child\n" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        chunk = process.read(5)
        assert chunk is not None
        assert chunk.data == b"child\n"


def test_calls_that_failed_hold_no_connection(server: StandIn) -> None:
    from atoll.sdk._io import _lanes

    with Sandbox.create() as sandbox:
        with pytest.raises(NotFound):
            sandbox.files.read("/none")
        sandbox.run("truncate -s 9000000 big")
        with sandbox.files._api.stream(f"/v1/sessions/{sandbox.id}/files?path=/big", timeout_s=5) as body:
            next(iter(body))
        server.stop()
        with pytest.raises(ConnectionFailed):
            sandbox.run("true")
        server.start()
    assert not [lane for lanes in _lanes.values() for lane in lanes if lane.users]


def test_proxies_of_the_environment_see_nothing(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Sandbox.create() as sandbox:
        assert sandbox.run("echo hi", on_stdout=lambda text: None).stdout == "hi\n"


def test_a_redirection_is_an_error_and_never_followed(server: StandIn) -> None:
    from atoll.sdk._sync.api import Api
    from atoll.sdk.config import resolve

    elsewhere = socket.create_server(("127.0.0.1", 0))
    elsewhere.settimeout(0.2)
    where = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
    answer = f"HTTP/1.1 302 Found\r\nLocation: {where}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    listener = socket.create_server(("127.0.0.1", 0))

    def redirect() -> None:
        for _ in range(2):
            with listener.accept()[0] as client:
                client.recv(65_536)
                client.sendall(answer.encode())

    with listener, elsewhere, ThreadPoolExecutor(1) as thread:
        thread.submit(redirect)
        api = Api(resolve(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        with pytest.raises(AtollError):
            api.call("GET", "/v1/templates")
        with pytest.raises(AtollError):
            api.websocket("/v1/sessions/x/attach")
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_logs_are_the_main_processs_output(server: StandIn) -> None:
    with Sandbox.create(command="echo one; sleep 0.2; echo two >&2") as sandbox:
        assert b"".join(sandbox.follow_logs()) == b"one\ntwo\n"
        assert sandbox.logs() == "one\ntwo\n"
        assert b"".join(sandbox.follow_logs(offset=4)) == b"two\n"


def test_followed_logs_go_on_after_a_cut(server: StandIn, proxy: CuttingProxy) -> None:
    with Sandbox.create(command="echo one; sleep 0.5; echo two; sleep 0.5; echo three") as sandbox:
        seen = b""
        for piece in sandbox.follow_logs():
            seen += piece
            if piece.startswith((b"one", b"two")):
                proxy.cut_all()
    assert seen == b"one\ntwo\nthree\n"


def test_pause_resume_and_keepalive_are_calls(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        sandbox.pause()
        sandbox.resume()
        sandbox.keepalive()
    assert [line.rpartition("/")[2] for line in server.routes.seen[1:4]] == ["pause", "resume", "keepalive"]


def test_a_paused_sandbox_says_so(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        sandbox.pause()
        assert sandbox.info().paused
        sandbox.resume()
        assert not sandbox.info().paused


def test_silence_is_a_deadline_exceeded(server: StandIn) -> None:
    from atoll.sdk._sync.api import connect

    with Sandbox.create() as sandbox, pytest.raises(DeadlineExceeded, match="was silent for"):
        body = {"command": ["sleep", "5"], "encoding": "base64"}
        connect().call("POST", f"/v1/sessions/{sandbox.id}/exec", body, timeout_s=0.2)
