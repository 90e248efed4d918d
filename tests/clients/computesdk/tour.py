"""PyPI computesdk 0.1.1, unmodified, through all that it can do; it runs in the client's own virtual environment."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import computesdk  # pyright: ignore[reportMissingImports]
from computesdk import Compute, GatewayConfig  # pyright: ignore[reportMissingImports]
from computesdk.exceptions import AuthenticationError, ForbiddenError, NotFoundError  # pyright: ignore
from computesdk.types import (  # pyright: ignore[reportMissingImports]
    CreateSandboxOptions,
    CreateSessionTokenOptions,
    CreateTerminalOptions,
    CreateWatcherOptions,
    RunCommandOptions,
    StartServerOptions,
)
from computesdk.websocket_client import TerminalSession, WebSocketClient  # pyright: ignore

STEP_S = 25
results: list[dict[str, Any]] = []
called: dict[str, int] = {}


async def step(name: str, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run one step; a failure is told, and the tour goes on."""
    try:
        value = await asyncio.wait_for(work(), STEP_S)
    except Exception:
        results.append({"name": name, "ok": False, "error": traceback.format_exc()[-1500:]})
        return None
    results.append({"name": name, "ok": True})
    return value


def note(owner: type) -> None:
    """Count the calls of a class's public methods; they stay what they are."""
    for name, method in list(vars(owner).items()):
        if name.startswith("_") or not callable(method):
            continue
        key = f"{owner.__name__}.{name}"
        called[key] = 0

        def counted(*words: Any, _method: Any = method, _key: str = key, **more: Any) -> Any:
            called[_key] += 1
            return _method(*words, **more)

        setattr(owner, name, functools.wraps(method)(counted))


async def eventually(look: Callable[[], Any], what: str, within_s: float = 8.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.03)
    return found


async def refused(work: Awaitable[Any], error: type[BaseException]) -> None:
    try:
        await work
    except error:
        return
    raise AssertionError(f"{error.__name__} did not come")


async def gateway(compute: Any) -> Any:
    async def create() -> Any:
        options = CreateSandboxOptions(timeout=600_000, metadata={"of": "tour"}, envs={"FROM_CREATE": "yes"})
        return await compute.sandbox.create(options)

    return await step("sandbox.create", create)


async def about(compute: Any, sandbox: Any) -> None:
    async def look() -> None:
        assert await sandbox.health() is True
        info = await sandbox.get_info()
        assert (info.id, info.status.value) == (sandbox.sandbox_id, "running")
        assert sandbox.provider == "docker" or sandbox.provider
        assert sandbox.metadata["of"] == "tour"
        assert (sandbox.name, sandbox.namespace) == (sandbox.name, sandbox.namespace)
        assert sandbox.get_sandbox_url().startswith("http")
        # It knows one domain only, that of ComputeSDK's own previews.
        assert (await sandbox.get_url(3000)).endswith("-3000.preview.computesdk.com")
        ran = await sandbox.run_command("echo $FROM_CREATE")
        assert ran.stdout == "yes\n", ran

    async def named() -> None:
        assert (await compute.sandbox.get_by_id(sandbox.sandbox_id)).sandbox_id == sandbox.sandbox_id
        await refused(compute.sandbox.get_by_id("sess_0123456789ab"), NotFoundError)
        made = await compute.sandbox.find_or_create("tour-py", "tours", CreateSandboxOptions(timeout=600_000))
        assert (await compute.sandbox.find("tour-py", "tours")).sandbox_id == made.sandbox_id
        await made.destroy()
        assert await compute.sandbox.find("tour-py", "tours") is None
        await sandbox.extend(60_000)

    async def wrong() -> None:
        async with Compute(GatewayConfig("sk_wrong", "docker", gateway_url=os.environ["GATEWAY"])) as other:
            await refused(other.sandbox.create(), AuthenticationError)

    await step("health, information and addresses", look)
    await step("get_by_id, find_or_create, find and extend", named)
    await step("a wrong key is told as such", wrong)


async def running(sandbox: Any) -> None:
    async def commands() -> None:
        ran = await sandbox.run_command("echo out; echo err >&2; exit 3")
        assert (ran.stdout, ran.stderr, ran.exit_code) == ("out\n", "err\n", 3)
        options = RunCommandOptions(shell="/bin/sh", cwd="/tmp", env={"NAME": "it is"}, timeout=5_000)
        assert (await sandbox.run_command('echo "$0 $PWD $NAME"', options)).stdout == "/bin/sh /tmp it is\n"
        began = time.monotonic()
        await sandbox.run_command("sleep 9", RunCommandOptions(background=True))
        assert time.monotonic() - began < 5

    async def code() -> None:
        ran = await sandbox.run_code("print(6 * 7)")
        assert (ran.output, ran.exit_code, ran.language) == ("42\n", 0, "python")
        assert (await sandbox.run_code("console.log(1 + 1)", "node")).output == "2\n"
        for missing in ("deno", "bun"):  # not in every template: its own words say so
            ran = await sandbox.run_code("console.log(3)", missing)
            assert (ran.exit_code, "not found" in ran.output) == (127, True) or ran.output == "3\n", ran

    async def stream() -> None:
        """It has no method for it, but the pieces: a prepared command, its channel, and the message that starts it."""
        made = await sandbox._client.post("/run/command", json={"command": "echo one; exit 4", "stream": True})
        told: list[Any] = []

        async def heard(message: Any) -> None:
            told.append(message)

        url = sandbox.get_sandbox_url().replace("http", "ws", 1) + "/ws"
        async with WebSocketClient(url, sandbox.get_token(), protocol="json") as client:
            client.on("*", heard)
            await client.subscribe(made["data"]["channel"])
            await client.start_command(made["data"]["cmd_id"])
            await eventually(lambda: any(one["type"] == "command:exit" for one in told), f"the end: {told}")
            await client.unsubscribe(made["data"]["channel"])
            client.off("*")
        assert [one["data"].get("output") or one["data"]["exit_code"] for one in told] == ["one\n", 4]

    await step("run_command", commands)
    await step("run_code", code)
    await step("a streamed command, over WebSocketClient", stream)


async def files(sandbox: Any) -> None:
    async def all_of_it() -> None:
        of, path = sandbox.filesystem, "/tmp/a folder/ü %41.txt"
        await of.write_file(path, "text ✓")
        assert await of.read_file(path) == "text ✓"
        await of.write_file("/tmp/empty", "")
        assert await of.read_file("/tmp/empty") == ""
        (entry,) = await of.readdir("/tmp/a folder")
        assert (entry.name, entry.type, entry.size) == ("ü %41.txt", "file", 8)
        assert await of.exists(path) is True
        assert await of.exists("/tmp/never") is False
        await of.mkdir("/tmp/made/deep")
        assert (await of.readdir("/tmp/made"))[0].type == "directory"
        await of.batch_write([{"path": "/tmp/b/1", "content": "1"}, {"path": "/tmp/b/2", "content": "2"}])
        assert await of.read_file("/tmp/b/2") == "2"
        await of.remove(path)
        assert await of.exists(path) is False
        await refused(of.read_file(path), NotFoundError)

    await step("filesystem", all_of_it)


async def terminals(sandbox: Any) -> None:
    async def named() -> None:
        made = await sandbox.create_terminal()
        assert made.pty is False
        ran = await sandbox.execute_in_terminal(made.id, "echo in")
        assert ran["stdout"] == "in\n"
        begun = await sandbox.execute_in_terminal(made.id, "sleep 0.2; echo later", background=True)
        ended = await sandbox.wait_for_command(made.id, begun["cmd_id"], timeout=10)
        assert (ended["stdout"], ended["status"]) == ("later\n", "completed")
        assert made.id in [one.id for one in await sandbox.list_terminals()]
        assert (await sandbox.get_terminal(made.id)).id == made.id
        await sandbox.destroy_terminal(made.id)
        await refused(sandbox.get_terminal(made.id), NotFoundError)

    async def shell() -> None:
        made = await sandbox.create_terminal(CreateTerminalOptions(shell="/bin/bash", encoding="raw", pty=True))
        assert made.pty and made.channel and made.ws_url
        told: list[str] = []
        session = TerminalSession(sandbox.get_sandbox_url(), sandbox.get_token(), made.id, made.channel)
        session.on_output(told.append)
        async with session:
            assert session.terminal_id == made.id
            await session.resize(101, 33)
            await session.write("stty size; echo sum $((40 + 2))\n")
            await eventually(lambda: "33 101" in "".join(told) and "sum 42" in "".join(told), f"output: {told}")
        await sandbox.destroy_terminal(made.id)

    await step("a terminal without a PTY", named)
    await step("a shell on a PTY, over TerminalSession", shell)


async def events(sandbox: Any) -> None:
    async def watcher() -> None:
        await sandbox.filesystem.mkdir("/tmp/watched")
        options = CreateWatcherOptions(include_content=True, ignored=["*.tmp"], encoding="raw")
        made = await sandbox.create_watcher("/tmp/watched", options)
        assert made.ws_url and made.include_content and made.ignored == ["*.tmp"]
        told: list[Any] = []

        async def heard(message: Any) -> None:
            told.append(message["data"])

        async with WebSocketClient(made.ws_url, sandbox.get_token()) as client:
            client.on("file:changed", heard)
            await client.subscribe(made.channel)
            await asyncio.sleep(0.1)
            await sandbox.filesystem.write_file("/tmp/watched/a.txt", "seen")
            await eventually(lambda: any(one.get("content") == "seen" for one in told), f"the change: {told}")
        assert made.id in [one.id for one in await sandbox.list_watchers()]
        assert (await sandbox.get_watcher(made.id)).path == "/tmp/watched"
        await sandbox.destroy_watcher(made.id)
        assert made.id not in [one.id for one in await sandbox.list_watchers()]

    async def signals() -> None:
        status = await sandbox.start_signals()
        assert (status.status, status.channel) == ("active", "signals")
        told: list[Any] = []

        async def heard(message: Any) -> None:
            told.append(message["data"])

        async with WebSocketClient(status.ws_url, sandbox.get_token()) as client:
            client.on("signal", heard)
            await client.subscribe(status.channel)
            await asyncio.sleep(0.1)
            await sandbox.emit_port_signal(4001, "open", "http://here:4001")
            await sandbox.emit_server_ready_signal(4002, "http://here:4002")
            await sandbox.emit_error_signal("it broke")
            await eventually(lambda: any(one.get("message") == "it broke" for one in told), f"the error: {told}")
        assert {"port", "server-ready", "error"} <= {one["signal"] for one in told}
        assert (await sandbox.get_signal_status()).status == "active"
        await sandbox.stop_signals()
        assert (await sandbox.get_signal_status()).status == "stopped"

    await step("a watcher", watcher)
    await step("signals", signals)


async def environment(sandbox: Any) -> None:
    async def all_of_it() -> None:
        file = "/tmp/py.env"
        assert await sandbox.env_exists(file) is False
        # The client's own fault: its HTTP class takes no `params` with POST.
        await refused(sandbox.set_env({"A": "1"}, file), TypeError)
        await sandbox.filesystem.write_file(file, "A=1\nB='two words'\n")
        assert await sandbox.env_exists(file) is True
        assert (await sandbox.get_env(file))["variables"] == {"A": "1", "B": "two words"}  # all of `data`, as it does
        await sandbox.delete_env(["A"], file)
        assert (await sandbox.get_env(file))["variables"] == {"B": "two words"}

    await step("environment files", all_of_it)


async def servers(sandbox: Any) -> None:
    async def all_of_it() -> None:
        await sandbox.filesystem.write_file("/tmp/site/.env", "MARK=m\n")
        start = "exec python3 -u -m http.server 4200 --bind 127.0.0.1"
        made = await sandbox.start_server(StartServerOptions("py-site", start, path="/tmp/site", env_file=".env"))
        assert (made.slug, made.start) == ("py-site", start)
        for _ in range(100):
            found = await sandbox.get_server("py-site")
            if found.port == 4200:
                break
            await asyncio.sleep(0.1)
        assert found.port == 4200 and found.url, found
        await sandbox.restart_server("py-site")
        await sandbox.update_server_status("py-site", "ready")
        assert "py-site" in [one.slug for one in await sandbox.list_servers()]
        await sandbox.stop_server("py-site")
        assert "py-site" not in [one.slug for one in await sandbox.list_servers()]

    await step("servers", all_of_it)


async def tokens(sandbox: Any) -> None:
    async def all_of_it() -> None:
        made = await sandbox.create_session_token(CreateSessionTokenOptions("for a page", 3600))
        assert made.id and made.token and made.expires_at
        assert made.id in [one.id for one in await sandbox.list_session_tokens()]
        assert (await sandbox.get_session_token(made.id)).description == "for a page"
        assert (await sandbox.get_auth_status())["token_type"] == "access_token"
        assert (await sandbox.get_auth_info())["endpoints"]
        link = await sandbox.create_magic_link("/play/")
        assert link.magic_url and link.expires_at
        assert (await sandbox.create_magic_link()).magic_url
        own = sandbox.get_token()
        sandbox.set_token(made.token)
        try:
            assert (await sandbox.get_auth_status())["token_type"] == "session_token"
            assert (await sandbox.run_command("echo by token")).stdout == "by token\n"
            await refused(sandbox.create_session_token(), ForbiddenError)
        finally:
            sandbox.set_token(own)
        await sandbox.revoke_session_token(made.id)

    await step("tokens and magic links", all_of_it)


async def children(sandbox: Any) -> None:
    async def all_of_it() -> None:
        made = await sandbox.create_child_sandbox()
        assert made["is_main"] is False and made["url"]
        assert made["subdomain"] in [one["subdomain"] for one in await sandbox.list_child_sandboxes()]
        assert (await sandbox.get_child_sandbox(made["subdomain"]))["url"] == made["url"]
        await sandbox.destroy_child_sandbox(made["subdomain"], delete_files=True)
        await refused(sandbox.get_child_sandbox(made["subdomain"]), NotFoundError)

    await step("child sandboxes", all_of_it)


async def main() -> None:
    for owner in (computesdk.Sandbox, computesdk.FileSystem, WebSocketClient, TerminalSession):
        note(owner)
    config = GatewayConfig(os.environ["KEY"], "docker", gateway_url=os.environ["GATEWAY"])
    async with Compute(config) as compute:
        note(type(compute.sandbox))
        sandbox = await gateway(compute)
        if sandbox is not None:
            await about(compute, sandbox)
            for part in (running, files, terminals, events, environment, servers, tokens, children):
                await part(sandbox)

            async def destroy() -> None:
                await sandbox.destroy()
                await refused(compute.sandbox.get_by_id(sandbox.sandbox_id), NotFoundError)

            await step("destroy", destroy)
    uncalled = [key for key, times in called.items() if not times]
    print(json.dumps({"results": results, "uncalled": uncalled, "called": len(called)}))


asyncio.run(main())
