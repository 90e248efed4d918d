"""What our client for the OpenAI Agents SDK works out by itself: addresses of ports, snapshots by name, bounds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from agents.sandbox.errors import PtySessionNotFoundError

from atoll.domain.errors import InvalidInput, Unsupported
from atoll.sdk.openai_agents import AtollSandboxClientOptions, AtollSandboxSessionState
from atoll.sdk.openai_agents.ports import address_of
from atoll.sdk.openai_agents.snapshots import MAGIC, Named, named
from atoll.sdk.openai_agents.terminals import Terminals
from atoll.sdk.values import Chunk


class Api:
    """A server at some host, whose previews have that address."""

    def __init__(self, host: str, preview: str = "") -> None:
        self.config = SimpleNamespace(host=host)
        self.asked: list[str] = []
        self._preview = preview

    async def call(self, _method: str, target: str, body: Any = None) -> dict[str, Any]:
        self.asked.append(target)
        if target == "/preview/register":
            assert body == {"sandbox_id": Sandbox.id, "port": 80}, "what is said of one that is registered takes effect"
        return {"preview_url": self._preview, "url": f"{self._preview}?preview_token=t"}


class Sandbox:
    id = "sess_000000000000"

    async def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port + 30_000}"


async def at(api: Api) -> str:
    found = await address_of(cast(Any, api), cast(Any, Sandbox()), 80)
    return found.url_for("http")


async def test_a_port_is_reached_by_its_listener_on_this_machine() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        api = Api(host)
        assert await at(api) == "http://127.0.0.1:30080/"
        assert api.asked == []


async def test_a_port_is_reached_by_a_preview_from_another_machine() -> None:
    api = Api("atoll.example", "https://80-sess-000000000000.previews.example/")
    assert await at(api) == "https://80-sess-000000000000.previews.example/?preview_token=t"
    assert api.asked == ["/preview/register", "/preview/token"]
    with pytest.raises(Unsupported, match="host names"):
        await at(Api("atoll.example", "https://atoll.example/preview/sess_000000000000/80"))


def test_a_snapshot_that_the_server_keeps_is_known_by_how_it_begins() -> None:
    kept = Named("ws_1", "snap_1")
    assert named(kept.encoded()) == kept
    assert named(b"some archive") is None
    for broken in (b"", b"{}", b"[1]", b"\xff", b'{"workspace": 1}'):
        with pytest.raises(InvalidInput):
            named(MAGIC + broken)


def test_options_and_state_go_to_json_and_back() -> None:
    options = AtollSandboxClientOptions(workspace="w", exposed_ports=(80,), env={"A": "b"})
    assert AtollSandboxClientOptions.parse(options.model_dump(mode="json")) == options
    assert "api_key" not in AtollSandboxClientOptions.model_fields | AtollSandboxSessionState.model_fields


class Process:
    """Writes pieces and ends when it is told to."""

    id = "p1"

    def __init__(self, *pieces: bytes) -> None:
        self.exit_code: int | None = None
        self.typed: list[str] = []
        self.killed = False
        self.over = asyncio.Event()
        self._pieces = pieces

    async def __aiter__(self) -> Any:
        for piece in self._pieces:
            yield Chunk("stdout", piece)
        await self.over.wait()
        self.exit_code = 7

    async def write(self, text: str) -> None:
        self.typed.append(text)

    async def kill(self) -> None:
        self.killed = True
        self.over.set()

    async def close(self) -> None: ...


async def test_a_command_that_is_come_back_to_tells_what_it_wrote_and_how_it_ended() -> None:
    terminals, process = Terminals(), Process(b"one ", b"two")
    first = await terminals.add(cast(Any, process), tty=True, yield_time_s=0.25, max_output_tokens=None)
    assert (first.output, first.exit_code) == (b"one two", None) and first.process_id is not None
    process.over.set()
    last = await terminals.write(first.process_id, "x", yield_time_s=0.25, max_output_tokens=None)
    assert (last.process_id, last.exit_code, process.typed) == (None, 7, ["x"])
    with pytest.raises(PtySessionNotFoundError):
        await terminals.write(first.process_id, "", yield_time_s=0.25, max_output_tokens=None)


async def test_commands_end_with_their_session() -> None:
    terminals, process = Terminals(), Process()
    started = await terminals.add(cast(Any, process), tty=False, yield_time_s=0.25, max_output_tokens=None)
    with pytest.raises(RuntimeError, match="stdin"):
        await terminals.write(started.process_id or 0, "x", yield_time_s=0.25, max_output_tokens=None)
    await terminals.end_all()
    assert process.killed


async def test_a_command_that_cannot_be_ended_keeps_no_other_going() -> None:
    class Broken(Process):
        async def kill(self) -> None:
            raise RuntimeError("no")

    terminals, broken, process = Terminals(), Broken(), Process()
    for one in (broken, process):
        await terminals.add(cast(Any, one), tty=False, yield_time_s=0.25, max_output_tokens=None)
    await terminals.end_all()
    assert process.killed
    broken.over.set()
