"""The HTTP sandbox protocol of openai-agents, as its client's source has it: shapes, statuses, events, frames."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from base64 import b64decode
from typing import Any

import pytest

from atoll.sidekick.client import ProcessStream


async def made(house: Any, **body: Any) -> str:
    answer = await house.call("POST", "/v1/sandbox", json={"network": "none"} | body)
    assert answer.status_code == 200, answer.text
    return "/v1/sandbox/" + answer.json()["id"]


async def run(house: Any, sandbox: str, *argv: str, **body: Any) -> list[tuple[str, Any]]:
    """The events of a command: base64 decoded, JSON read."""
    answer = await house.call("POST", f"{sandbox}/exec", json={"argv": argv} | body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found: list[tuple[str, Any]] = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            name = fields["event"]
            found.append((name, b64decode(fields["data"]) if name.startswith("std") else json.loads(fields["data"])))
    return found


def tar_of(*files: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


async def test_a_sandbox_without_any_body_has_the_networks_default_and_lives_until_it_is_deleted(house: Any) -> None:
    answer = await house.call("POST", "/v1/sandbox")
    assert answer.status_code == 200
    sandbox = f"/v1/sandbox/{answer.json()['id']}"
    assert (await house.call("GET", f"{sandbox}/running")).json() == {"running": True}
    seen = (await house.call("GET", f"/v1/sessions/{answer.json()['id']}")).json()
    assert seen["network"]["mode"] == "outgoing"
    for _ in range(2):  # its client deletes again on closing
        assert (await house.call("DELETE", sandbox)).json() == {"ok": True}
    assert (await house.call("GET", f"{sandbox}/running")).json() == {"running": False}


async def test_an_id_goes_on_to_mean_a_sandbox_when_that_has_ended(house: Any) -> None:
    sandbox = await made(house, name="lasting")
    await house.call("PUT", f"{sandbox}/file/workspace/a", content=b"old")
    await house.call("DELETE", sandbox)
    assert (await house.call("GET", f"{sandbox}/file/workspace/a")).status_code == 409  # to look at it makes none
    revived = await asyncio.gather(*(run(house, sandbox, "pwd") for _ in range(5)))
    assert all(events[0] == ("stdout", b"/workspace\n") for events in revived)
    assert (await house.call("GET", f"{sandbox}/running")).json() == {"running": True}
    assert (await house.call("GET", f"{sandbox}/file/workspace/a")).status_code == 404
    live = (await house.call("GET", "/v1/sessions?status=running")).json()["sessions"]
    assert [one["name"] for one in live] == ["lasting"]
    await house.call("DELETE", sandbox)
    assert (await house.call("GET", f"{sandbox}/running")).json() == {"running": False}
    await house.call("DELETE", f"/v1/sessions/{sandbox.rpartition('/')[2]}?remove=true")
    gone = await house.call("POST", f"{sandbox}/exec", json={"argv": ["true"]})
    assert (gone.status_code, gone.json()["code"]) == (404, "NOT_FOUND")


async def test_an_id_of_another_surface_is_its_own(house: Any) -> None:
    made = (await house.create())["id"]
    await house.call("DELETE", f"/v1/sessions/{made}")
    answer = await house.call("POST", f"/v1/sandbox/{made}/exec", json={"argv": ["true"]})
    assert answer.status_code == 409


async def test_what_has_ended_and_is_anothers_is_unknown(house: Any, keys: Any) -> None:
    sandbox = await made(house)
    await house.call("DELETE", sandbox)
    for path in (sandbox, "/v1/sandbox/sess_000000000000"):
        answer = await house.call("POST", f"{path}/exec", keys.BOB, json={"argv": ["true"]})
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_commands_start_in_the_workspace_and_tell_output_and_end(house: Any) -> None:
    sandbox = await made(house)
    assert await run(house, sandbox, "pwd") == [
        ("stdout", b"/workspace\n"),
        ("exit", {"exit_code": 0, "timed_out": False}),
    ]
    found = await run(house, sandbox, "no-such-program")
    assert [name for name, _ in found] == ["stderr", "exit"]
    assert found[-1][1]["exit_code"] == 127


async def test_a_command_that_takes_too_long_ends_with_124(house: Any) -> None:
    found = await run(house, await made(house), "sleep", "30", timeout_ms=50)
    assert found == [("exit", {"exit_code": 124, "timed_out": True})]


async def test_whoever_hangs_up_ends_the_command(house: Any) -> None:
    sandbox = await made(house)
    body = {"argv": ["sleep", "30"]}
    async with house.http.stream("POST", f"{house.url}{sandbox}/exec", json=body, headers=house.headers(KEY)) as answer:
        assert answer.status_code == 200
        process = answer.headers["atoll-process"]
    wait = f"/v1/sessions/{sandbox.rpartition('/')[2]}/processes/{process}/wait?timeoutMs=5000"
    assert (await house.call("GET", wait)).json()["exitCode"] != 0


async def test_the_end_of_the_sandbox_is_told_in_the_stream(house: Any) -> None:
    sandbox = await made(house)
    command = asyncio.create_task(run(house, sandbox, "sleep", "30"))
    for _ in range(100):
        listed = await house.call("GET", f"/v1/sessions/{sandbox.rpartition('/')[2]}/processes")
        if listed.json()["processes"]:
            break
        await asyncio.sleep(0.01)
    await house.call("DELETE", sandbox)
    ((name, told),) = await command
    assert name == "error"
    assert told["code"] == "CONFLICT"


async def test_files_are_written_and_read_by_their_path(house: Any) -> None:
    sandbox = await made(house)
    put = await house.call("PUT", f"{sandbox}/file/workspace/a%20b/%C3%A9.txt", content=b"hello")
    assert (put.status_code, put.json()) == (200, {"ok": True})
    got = await house.call("GET", f"{sandbox}/file/workspace/a%20b/%C3%A9.txt")
    assert (got.status_code, got.content, got.headers["content-type"]) == (200, b"hello", "application/octet-stream")
    missing = await house.call("GET", f"{sandbox}/file/workspace/none")
    assert missing.status_code == 404
    assert set(missing.json()) == {"error", "code"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("", 400),
        ("a%00b", 400),
        ("a%ff", 400),
        ("x" * 4097, 400),
        ("..%2f..%2fetc%2fhostname", 200),
        ("%2fetc/hostname", 200),
    ],
    ids=["empty", "nul", "no_utf8", "too_long", "above_the_root", "two_slashes"],
)
async def test_f01_a_path_is_the_sandboxs_own_or_refused(house: Any, path: str, status: int) -> None:
    answer = await house.call("GET", f"{await made(house)}/file/{path}")
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.content == b"sandbox\n"  # its own host's name, and nobody else's


async def test_f02_a_link_leads_to_what_is_inside(house: Any) -> None:
    sandbox = await made(house)
    await run(house, sandbox, "ln", "-s", "/etc", "/workspace/out")
    answer = await house.call("GET", f"{sandbox}/file/workspace/out/hostname")
    assert answer.content == b"sandbox\n"


async def test_what_is_persisted_hydrates_another_sandbox(house: Any) -> None:
    sandbox, other = await made(house), await made(house)
    for path in ("keep/a.txt", "keep/b.txt", "skip/c.txt"):
        await house.call("PUT", f"{sandbox}/file/workspace/{path}", content=path.encode())
    packed = await house.call("POST", f"{sandbox}/persist?excludes=skip,keep/b.txt")
    assert packed.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as tar:
        assert tar.getnames() == ["./keep", "./keep/a.txt"]
    taken = await house.call("POST", f"{other}/hydrate", content=packed.content)
    assert (taken.status_code, taken.json()) == (200, {"ok": True})
    assert (await house.call("GET", f"{other}/file/workspace/keep/a.txt")).content == b"keep/a.txt"


@pytest.mark.parametrize("excludes", ["../etc", "/etc", "a//b", "./..", "."])
async def test_excludes_lie_below_the_workspace(house: Any, excludes: str) -> None:
    answer = await house.call("POST", f"{await made(house)}/persist", params={"excludes": excludes})
    assert (answer.status_code, answer.json()["field"]) == (400, "excludes")


@pytest.mark.parametrize(
    "body",
    [tar_of(("../out", b"x")), tar_of(("dev", b""), kind=tarfile.CHRTYPE), b"\x1f\x8b no archive at all" * 64],
    ids=["out", "device", "garbage"],
)
async def test_f08_what_may_not_be_unpacked_is_refused(house: Any, body: bytes) -> None:
    sandbox = await made(house)
    answer = await house.call("POST", f"{sandbox}/hydrate", content=body)
    assert answer.status_code == 400
    assert "cannot be unpacked" in answer.json()["error"]
    assert (await house.call("GET", f"{sandbox}/file/out")).status_code == 404


async def test_an_archive_that_is_too_large_is_refused(open_house: Any) -> None:
    small = {"limits": {"maxima": {"disk_bytes": 2**20}, "defaults": {"disk_bytes": 2**20}}}
    async with open_house(**small) as house:
        sandbox = await made(house)
        answer = await house.call("POST", f"{sandbox}/hydrate", content=bytes(2**20 + 1))
        assert answer.status_code == 413


async def test_a_bucket_is_not_mounted_and_says_what_is_possible(house: Any) -> None:
    sandbox = await made(house)
    body = {"bucket": "b", "mountPath": "/workspace/b", "options": {"secret": "canary"}}
    answer = await house.call("POST", f"{sandbox}/mount", json=body)
    assert answer.status_code == 501
    assert "workspace" in answer.json()["error"]
    assert "canary" not in answer.text
    unmount = await house.call("POST", f"{sandbox}/unmount", json={"mountPath": "/workspace/b"})
    assert unmount.status_code == 501


async def test_a_terminal_is_ready_shows_what_is_typed_resizes_and_ends(house: Any) -> None:
    sandbox = await made(house)
    async with house.socket(f"{sandbox}/pty?cols=100&rows=30") as socket:
        assert json.loads(await socket.recv()) == {"type": "ready"}
        await socket.send(b"stty\n")
        assert b"30 100" in await until(socket, b"30 100")
        await socket.send('{"type":"resize","cols":120,"rows":40}')
        await socket.send(b"stty\n")
        assert b"40 120" in await until(socket, b"40 120")
        await socket.send("typed as text")
        assert json.loads(await text(socket))["type"] == "warning"
        await socket.send(b"exit 5\n")
        assert json.loads(await text(socket)) == {"type": "exit", "code": 5}


@pytest.mark.parametrize("hangs", [False, True], ids=["", "though closing hangs"])
async def test_the_shell_ends_with_its_connection(house: Any, monkeypatch: pytest.MonkeyPatch, hangs: bool) -> None:
    async def close(_stream: ProcessStream) -> None:
        await asyncio.Event().wait()

    sandbox = await made(house)
    if hangs:
        monkeypatch.setattr("atoll.surfaces.agents_sdk.pty.END_S", 0.1)
        monkeypatch.setattr("atoll.services.processes._Metered.close", close)
    async with house.socket(f"{sandbox}/pty") as socket:
        await socket.recv()
    for _ in range(200):
        listed = await house.call("GET", f"/v1/sessions/{sandbox.rpartition('/')[2]}/processes")
        if all(one.get("exitCode") is not None for one in listed.json()["processes"]):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(listed.text)


async def until(socket: Any, wanted: bytes) -> bytes:
    """What is shown until `wanted` is."""
    shown = b""
    async with asyncio.timeout(5):
        while wanted not in shown:
            message = await socket.recv()
            shown += message if isinstance(message, bytes) else b""
    return shown


async def text(socket: Any) -> str:
    """The next text frame."""
    async with asyncio.timeout(5):
        while True:
            message = await socket.recv()
            if isinstance(message, str):
                return message


KEY = "sk_" + "a1" * 32
