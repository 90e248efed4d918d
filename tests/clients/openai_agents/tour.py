"""CloudflareSandboxClient of openai-agents through all that it can do, against `worker_url` = our server.

Its key comes from CLOUDFLARE_SANDBOX_API_KEY. Prints one line of JSON: {step: what went wrong or null}.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from agents.extensions.sandbox.cloudflare import CloudflareSandboxClient, CloudflareSandboxClientOptions
from agents.sandbox import Manifest
from agents.sandbox.entries import Dir, File
from agents.sandbox.errors import ConfigurationError, MountConfigError, WorkspaceReadNotFoundError
from agents.sandbox.session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec

STEP_S = 30.0
URL = os.environ["WORKER_URL"]


async def main() -> None:
    client = CloudflareSandboxClient()
    manifest = Manifest(
        entries={"README.md": File(content=b"hello"), "src": Dir()}, environment={"value": {"COLOUR": "blue"}}
    )
    results: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        session = await client.create(
            snapshot=LocalSnapshotSpec(base_path=Path(folder)),
            manifest=manifest,
            options=CloudflareSandboxClientOptions(worker_url=URL),
        )
        async with session:
            for step in (running, commands, files, archives, terminal, long_command, bucket):
                results[step.__name__] = await tried(lambda step=step: step(session))
        kept = json.loads(json.dumps(client.serialize_session_state(session.state)))
        results["resumed"] = await tried(lambda: resumed(client, kept))
        await client.delete(session)
        results["gone"] = await tried(lambda: gone(session))
        results["again"] = await tried(lambda: again(client, session))
    results["refused"] = await tried(refused)
    print(json.dumps(results))


async def tried(step: Callable[[], Awaitable[None]]) -> str | None:
    try:
        async with asyncio.timeout(STEP_S):
            await step()
    except Exception as error:
        return f"{type(error).__name__}: {error} {getattr(error, 'context', '')}"
    return None


async def running(session: SandboxSession) -> None:
    assert await session.running()


async def commands(session: SandboxSession) -> None:
    ran = await session.exec("echo out $COLOUR; echo err >&2; pwd; exit 3")
    assert (ran.stdout, ran.stderr, ran.exit_code) == (b"out blue\n/workspace\n", b"err\n", 3), ran.stdout
    flood = await session.exec("head -c 3000000 /dev/zero")
    assert len(flood.stdout) == 3_000_000
    plain = await session.exec("printf", "%s", "a b", shell=False)
    assert plain.stdout == b"a b"
    assert (await session.exec("no-such-program", shell=False)).exit_code == 127


async def files(session: SandboxSession) -> None:
    assert (await session.read(Path("README.md"))).read() == b"hello"
    data = bytes(range(256)) * 4_096
    await session.write(Path("deep/er/ünï code.bin"), io.BytesIO(data))
    assert (await session.read(Path("deep/er/ünï code.bin"))).read() == data
    assert await session.read_bounded(Path("deep/er/ünï code.bin"), max_bytes=10) == data[:10]
    assert {Path(entry.path).name for entry in await session.ls(".")} >= {"README.md", "src", "deep"}
    await session.rm(Path("deep"), recursive=True)
    try:
        await session.read(Path("deep/er"))
    except WorkspaceReadNotFoundError:
        return
    raise AssertionError("what was removed was read")


async def archives(session: SandboxSession) -> None:
    await session.write(Path("keep/a.txt"), io.BytesIO(b"kept"))
    session.register_persist_workspace_skip_path("skip")
    await session.write(Path("skip/b.txt"), io.BytesIO(b"skipped"))
    archive = (await session.persist_workspace()).read()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert "keep/a.txt" in names and not any(name.startswith("skip") for name in names), names
    await session.exec("rm -rf keep")
    await session.hydrate_workspace(io.BytesIO(archive))
    assert (await session.read(Path("keep/a.txt"))).read() == b"kept"


async def terminal(session: SandboxSession) -> None:
    assert session.supports_pty()
    first = await session.pty_exec_start("echo $((6 * 7)); tty; read x; echo got:$x", tty=True, yield_time_s=1.0)
    assert first.process_id is not None and b"42" in first.output and b"/dev/pts/" in first.output, first
    then = await session.pty_write_stdin(session_id=first.process_id, chars="typed\n", yield_time_s=1.0)
    assert b"got:typed" in then.output, then
    await session.pty_terminate_all()


async def long_command(session: SandboxSession) -> None:
    """One that takes too long is ended by the server, with the code of timeout(1)."""
    assert (await session.exec("sleep 30", timeout=0.5)).exit_code == 124


async def bucket(session: SandboxSession) -> None:
    try:
        await session._inner.mount_bucket(bucket="b", mount_path="/workspace/b", options={})
    except MountConfigError as error:
        assert "workspace" in str(error.context["reason"])
        return
    raise AssertionError("a bucket was mounted")


async def resumed(client: CloudflareSandboxClient, kept: dict[str, object]) -> None:
    """The same sandbox, found again by the state that was kept of the session."""
    session = await client.resume(client.deserialize_session_state(kept))
    async with session:
        assert (await session.read(Path("keep/a.txt"))).read() == b"kept"
    await session._inner._close_http()


async def gone(session: SandboxSession) -> None:
    assert not await session.running()


async def again(client: CloudflareSandboxClient, old: SandboxSession) -> None:
    """A new sandbox from the snapshot that stopping the session left."""
    session = await client.create(snapshot=old.state.snapshot, options=CloudflareSandboxClientOptions(worker_url=URL))
    async with session:
        assert (await session.read(Path("keep/a.txt"))).read() == b"kept"
    await client.delete(session)


async def refused() -> None:
    """Without a good key there is no sandbox, and the SDK shows why."""
    try:
        await CloudflareSandboxClient().create(
            options=CloudflareSandboxClientOptions(worker_url=URL, api_key="sk_wrong")
        )
    except ConfigurationError as error:
        assert "401" in str(error), error
        return
    raise AssertionError("a sandbox was made")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
