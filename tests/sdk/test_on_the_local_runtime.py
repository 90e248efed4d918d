"""The SDK against the real thing: the server of `atoll up` with the local runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll import AsyncSandbox, Sandbox
from atoll.sdk import Conflict, InvalidInput, NotFound
from atoll.sdk._io import close_connections
from tests.sdk.cutting_proxy import CuttingProxy
from tests.sdk.test_process import MANY_LINES, MANY_LINES_TEXT

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL; ATOLL_DATA names its folder."""
    data = str(tmp_path_factory.mktemp("real"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATOLL_")}
    environment = clean | {"ATOLL_DATA": data, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    atoll = (sys.executable, "-m", "atoll.cli.main")
    up = [*atoll, "up", "--detach", "--port", "0", "--json"]
    said = json.loads(subprocess.run(up, env=environment, check=True, capture_output=True, timeout=60).stdout)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ATOLL_URL", raising=False)
        patch.delenv("ATOLL_API_KEY", raising=False)
        patch.setenv("ATOLL_DATA", data)
        yield said["url"]
    close_connections()
    subprocess.run([*atoll, "down", "--data", data], env=environment, check=True, capture_output=True, timeout=60)


def test_commands_run_with_their_input_environment_and_exit(real: str) -> None:
    with Sandbox.create(env={"A": "1"}) as sandbox:
        result = sandbox.run("cat; echo $A$B; pwd; exit 3", stdin="in ", env={"B": "2"}, cwd="/tmp")
        assert (result.stdout, result.exit_code) == ("in 12\n/tmp\n", 3)
        assert sandbox.run(["printf", r"\377\000"]).stdout_bytes == b"\xff\x00"
        assert sandbox.run("kill -SEGV $$").signal == 11
        assert sandbox.run("sleep 20", timeout=0.2).timed_out
        assert "not found" in sandbox.run(["no-such-program"]).stderr


def test_it_is_an_isolated_computer(real: str) -> None:
    with Sandbox.create() as sandbox:
        assert sandbox.run("ls /proc | grep -c '^[0-9]'").exit_code == 0
        assert int(sandbox.run("ls /proc | grep '^[0-9]' | wc -l").stdout) < 10
        assert sandbox.run("id -u").stdout.strip() != "0"


def test_files_go_in_and_out(real: str, tmp_path: Path) -> None:
    content = os.urandom(20_000_000)
    (tmp_path / "in").write_bytes(content)
    with Sandbox.create() as sandbox:
        sandbox.files.write("/tmp/ü", "grüß", mode=0o600)
        assert sandbox.files.read("/tmp/ü") == "grüß"
        assert sandbox.files.stat("/tmp/ü").mode == 0o600
        sandbox.files.upload(tmp_path / "in", "/tmp/deep/copy")
        assert sandbox.files.download("/tmp/deep/copy", tmp_path / "out") == len(content)
        assert (tmp_path / "out").read_bytes() == content
        assert [(entry.name, entry.size) for entry in sandbox.files.list("/tmp/deep")] == [("copy", len(content))]
        sandbox.files.move("/tmp/deep/copy", "/tmp/moved")
        assert not sandbox.files.exists("/tmp/deep/copy")
        sandbox.files.remove("/tmp/moved")
        with pytest.raises(NotFound):
            sandbox.files.read("/tmp/moved")
        with pytest.raises(InvalidInput):
            sandbox.files.read("/tmp")


def test_a_terminal_and_a_stream(real: str) -> None:
    with Sandbox.create() as sandbox:
        with sandbox.terminal(90, 30) as terminal:
            terminal.resize(100, 40)
            terminal.write("stty size; exit 5\n")
            assert b"40 100" in b"".join(chunk.data for chunk in terminal)
            assert terminal.exit_code == 5
        with sandbox.exec(["cat"]) as cat:
            cat.write("said\n")
            chunk = cat.read(5)
            assert chunk is not None
            assert chunk.data == b"said\n"
            cat.kill()
            assert cat.wait(5).signal == 9


def test_cuts_lose_and_double_nothing(real: str) -> None:
    proxy = CuttingProxy(int(real.rpartition(":")[2]))
    proxy.cuts = [3_000, 70_000, 500]
    try:
        with Sandbox.create(url=proxy.url) as sandbox, sandbox.exec(MANY_LINES) as process:
            assert b"".join(chunk.data for chunk in process) == MANY_LINES_TEXT
            assert process.lost_bytes == 0
            assert proxy.streams == 4
    finally:
        close_connections()
        proxy.close()


def test_its_life_is_told(real: str) -> None:
    with Sandbox.create(name="told", command="echo said; sleep 100", memory_mb=64, idle_timeout=500) as sandbox:
        until = time.monotonic() + 10
        while sandbox.logs() != "said\n":
            assert time.monotonic() < until
        assert sandbox.info().state == "running"
        assert sandbox.id in [info.id for info in Sandbox.list(state="running")]
        assert [process.id for process in sandbox.processes()] == ["main"]
        sandbox.pause()
        sandbox.resume()
        sandbox.keepalive()
        sandbox.stop()
        info = sandbox.info()
        assert (info.state, info.name, info.live) == ("stopped", "told", False)
        assert info.usage.duration_s > 0
        with pytest.raises(Conflict):
            sandbox.run("true")
    sandbox.kill(remove=True)
    with pytest.raises(NotFound):
        sandbox.info()


def test_a_port_is_reached_at_its_url(real: str) -> None:
    with Sandbox.create(command=["python3", "-m", "http.server", "8000"], ports=[8000], cwd="/tmp") as sandbox:
        sandbox.files.write("/tmp/page", "it is here")
        url = sandbox.url(8000) + "/page"
        until = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    assert answer.read() == b"it is here"
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)


async def test_the_awaiting_twin_does_the_same(real: str) -> None:
    async with await AsyncSandbox.create() as sandbox:
        seen: list[str] = []
        result = await sandbox.run("echo one; sleep 0.1; echo two >&2", on_stdout=seen.append)
        assert ("".join(seen), result.stderr) == ("one\n", "two\n")
        await sandbox.files.write("/tmp/f", b"x" * 3_000_000)
        assert len(await sandbox.files.read_bytes("/tmp/f")) == 3_000_000


def test_a_slow_reader_gets_everything(real: str) -> None:
    """More than the sandbox keeps, and more than any buffer on the way holds."""
    size = 24 * 2**20
    with Sandbox.create() as sandbox, sandbox.exec(f"head -c {size} /dev/zero", stdin=False) as process:
        time.sleep(2)
        got = 0
        for chunk in process:
            if got == 0:
                time.sleep(2)
            got += len(chunk.data)
        assert (got, process.lost_bytes) == (size, 0)
