"""Lists of names with real sandboxes: what programs inside reach and do not, on a planted internet."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, InvalidInput
from atoll.domain.key import DEFAULT_SCOPES, KeyKind
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import NetworkMode, SandboxSpec
from atoll.domain.secret import GivenAs, SecretUse
from atoll.gateway.egress import Egress
from atoll.runtimes.local.runtime import LocalRuntime
from atoll.services.authorities import Authorities
from atoll.services.gates import Nobody
from atoll.services.lives import Live
from atoll.services.sandbox_parts import make_sandbox_parts
from atoll.services.sandboxes import Sandboxes
from atoll.services.secret_giving import SecretGiving
from atoll.services.secrets import Secrets
from atoll.sidekick.client import GateStream
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault
from tests.gateway.conftest import Internet, echo

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes with a network need root"),
]
ALICE = Principal("key_a11ce0000000", KeyKind.STANDARD, DEFAULT_SCOPES, "alice")


class Servant(Nobody):
    def __init__(self, egress: Egress) -> None:
        self.egress = egress

    async def serve(self, live: Live, stream: GateStream) -> None:
        await self.egress.serve(live, stream)

    def changed(self, live: Live) -> None:
        self.egress.changed(live)

    def ended(self, sandbox_id: str) -> None:
        self.egress.forget(sandbox_id)


@dataclass
class World:
    data: Path
    internet: Internet
    records: MemoryRecords
    runtime: LocalRuntime
    vault: MemoryVault
    sandboxes: Sandboxes = field(init=False)
    secrets: Secrets = field(init=False)
    outer: Authorities = field(init=False)  # whom the planted internet's servers have their certificates from

    async def create(self, *allow: str, **more: object) -> str:
        spec = SandboxSpec(network=NetworkMode.LISTED, allow=allow, **more)  # type: ignore[arg-type]
        return (await self.sandboxes.create(ALICE, spec)).id

    async def python(self, sandbox_id: str, program: str) -> str:
        spec = ProcessSpec(argv=("python3", "-c", PRELUDE + program), timeout_s=20)
        result = await self.runtime.sidekick(sandbox_id).run(spec)
        assert result.exit.code == 0, result
        return result.stdout.decode().strip()

    def build(self) -> None:
        self.secrets = Secrets(self.records, self.vault)
        authorities = Authorities(self.data / "seed")
        giving = SecretGiving(self.records, self.secrets, authorities)
        self.sandboxes = Sandboxes(make_sandbox_parts(self.records, self.runtime, self.data / "server", secrets=giving))
        self.sandboxes.gates.servant = Servant(
            Egress(
                self.internet,
                self.internet.connect,
                giving=giving,
                authorities=authorities,
                ca_file=self.data / "outer.pem",
            )
        )


PRELUDE = """
import socket
def say(host, port, words=b"hello", wait=3):
    try:
        with socket.create_connection((host, port), wait) as sock:
            sock.sendall(words)
            return sock.recv(100)
    except OSError as error:
        return type(error).__name__
def ask(name):
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        return error.errno
"""


@pytest.fixture
async def world(tmp_path: Path, internet: Internet) -> AsyncIterator[World]:
    runtime = LocalRuntime(tmp_path / "data", spares=0)
    made = World(tmp_path, internet, MemoryRecords(), runtime, MemoryVault())
    made.outer = Authorities(tmp_path / "outer-seed")
    (tmp_path / "outer.pem").write_bytes(made.outer.bundle("outside"))
    await runtime.start()
    try:
        await made.vault.start()
        made.build()
        await made.sandboxes.start()
        internet.names |= {"good.example": ["93.184.216.34"], "bad.example": ["93.184.216.35"]}
        await internet.listen("93.184.216.34", 7000, echo)
        await internet.listen("93.184.216.35", 7000, echo)
        yield made
    finally:
        await made.sandboxes.close()
        await runtime.shutdown()


async def test_n05_what_the_list_has_is_reached_and_nothing_else(world: World) -> None:
    sandbox = await world.create("good.example", "*.parent.example")
    world.internet.names["a.parent.example"] = ["93.184.216.34"]
    assert await world.python(sandbox, "print(say('good.example', 7000))") == "b'echo hello'"
    assert await world.python(sandbox, "print(say('a.parent.example', 7000))") == "b'echo hello'"
    assert await world.python(sandbox, "print(say('bad.example', 7000))") == "gaierror"
    assert await world.python(sandbox, "print(say('parent.example', 7000))") == "gaierror"
    # an address that is on no list, though a name on it has it
    assert await world.python(sandbox, "print(say('93.184.216.34', 7000))") != "b'echo hello'"
    assert world.internet.reached == [("93.184.216.34", 7000)] * 2


async def test_n05_addresses_inside_are_reached_by_no_list(world: World) -> None:
    inside = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1"]
    world.internet.names |= {f"n{number}.example": [address] for number, address in enumerate(inside)}
    sandbox = await world.create("*", "0.0.0.0/0")
    for number, address in enumerate(inside):
        for host in (address, f"n{number}.example"):
            said = await world.python(sandbox, f"print(say({host!r}, 7000))")
            assert "echo" not in said, host
    assert world.internet.reached == []


async def test_n05_a_name_that_turns_inward_gains_nothing(world: World) -> None:
    """Rebinding: the address that is decided about is the one that is connected to."""
    sandbox = await world.create("good.example")
    address = await world.python(sandbox, "print(ask('good.example'))")
    world.internet.names["good.example"] = ["10.0.0.1", "127.0.0.1"]
    assert "echo" not in await world.python(sandbox, f"print(say({address!r}, 7000))")
    assert world.internet.reached == []


async def test_n05_udp_icmp_and_ipv6_have_no_way_out(world: World) -> None:
    sandbox = await world.create("*")
    program = """
for family, host in ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:4860:4860::8888")):
    for kind, protocol in ((socket.SOCK_DGRAM, 0), (socket.SOCK_DGRAM, 1 if family == socket.AF_INET else 58)):
        try:
            with socket.socket(family, kind, protocol) as sock:
                sock.sendto(bytes(8), (host, 123))
                print("sent")
        except OSError as error:
            print(type(error).__name__)
try:
    print(socket.socket(socket.AF_INET6).connect(("2001:4860:4860::8888", 443)))
except OSError as error:
    print(type(error).__name__)
"""
    assert "sent" not in await world.python(sandbox, program)


async def test_n05_the_policy_is_the_same_after_a_pause_and_a_restart_of_the_server(world: World) -> None:
    sandbox = await world.create("good.example")
    look = "print(say('good.example', 7000), say('bad.example', 7000), ask('good.example'))"
    before = await world.python(sandbox, look)
    assert before.startswith("b'echo hello' gaierror 198.1")
    await world.sandboxes.pause(ALICE, sandbox)
    await world.sandboxes.resume(ALICE, sandbox)
    assert await world.python(sandbox, look) == before
    await world.sandboxes.close()
    closed = await world.python(sandbox, "print(say('good.example', 7000, wait=0.5))")
    assert "echo" not in closed  # nobody answers: nothing goes out
    world.build()
    await world.sandboxes.start()
    assert await world.python(sandbox, look) == before


async def test_a_change_holds_at_once_and_cuts_what_it_does_not_allow(world: World) -> None:
    sandbox = await world.create("good.example")
    program = """
sock = socket.create_connection(("good.example", 7000), 5)
sock.sendall(b"one")
print(sock.recv(100), flush=True)
print(sock.recv(100), flush=True)
"""
    spec = ProcessSpec(argv=("python3", "-c", PRELUDE + program), timeout_s=20)
    stream = await world.runtime.sidekick(sandbox).start(spec)
    _, first = await anext(aiter(stream))
    assert first == b"b'echo one'\n"
    await world.sandboxes.set_allowed(ALICE, sandbox, ["bad.example"])
    async with asyncio.timeout(5):
        rest = b"".join([data async for _, data in stream])
    assert b"echo" not in rest
    await stream.close()
    assert await world.python(sandbox, "print(say('good.example', 7000), say('bad.example', 7000))") == (
        "gaierror b'echo hello'"
    )
    assert (await world.sandboxes.get(ALICE, sandbox)).spec.allow == ("bad.example",)


async def test_only_one_that_was_made_with_a_list_can_change_it(world: World) -> None:
    sandbox = await world.sandboxes.create(ALICE, SandboxSpec())
    with pytest.raises(Conflict):
        await world.sandboxes.set_allowed(ALICE, sandbox.id, ["good.example"])


async def test_what_goes_out_is_counted(world: World) -> None:
    sandbox = await world.create("good.example")
    await world.python(sandbox, "print(say('good.example', 7000, b'x' * 5000))")
    questions = range(30, 200)  # for the name, of 30 bytes each
    assert (await world.sandboxes.usage(ALICE, sandbox)).gateway_bytes - 5000 in questions


async def test_a_first_message_that_names_another_host_is_not_passed_on(world: World) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.write(b"ok")

    await world.internet.listen("93.184.216.34", 80, listen)
    sandbox = await world.create("good.example")
    request = "b'GET / HTTP/1.1\\r\\nHost: {}\\r\\n\\r\\n'"
    for host, passes in (("good.example", True), ("bad.example", False), ("10.0.0.1", False)):
        said = await world.python(sandbox, f"print(say('good.example', 80, {request.format(host)}))")
        assert (said == "b'ok'") == passes, host
    assert [words for words in heard if b"bad" in words or b"10.0" in words] == []


CANARY = "canary-7f3a9c51d2"
CALL = """
import os, urllib.request
request = urllib.request.Request(os.environ["URL"], headers={"Authorization": "Bearer " + os.environ["TOKEN"]})
print(urllib.request.urlopen(request, timeout=10).read().decode(), os.environ["TOKEN"][:13])
"""


async def test_a16_a_brokered_secret_reaches_its_host_and_never_the_sandbox(world: World) -> None:
    heard: list[bytes] = []
    certificate = world.outer.context("outside", "api.example")

    async def secure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        protocol = writer.transport.get_protocol()
        writer._transport = await loop.start_tls(writer.transport, protocol, certificate, server_side=True)  # type: ignore[attr-defined]
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone")
        await writer.drain()

    world.internet.names["api.example"] = ["93.184.216.40"]
    await world.internet.listen("93.184.216.40", 443, secure)
    await world.secrets.create(ALICE, "TOKEN", CANARY.encode(), hosts=["api.example"])
    uses = (SecretUse("TOKEN", GivenAs.BROKER),)
    sandbox = await world.create("api.example", secrets=uses, env={"URL": "https://api.example/"})
    spec = ProcessSpec(argv=("python3", "-c", CALL), timeout_s=20)
    result = await world.runtime.sidekick(sandbox).run(spec)
    assert result.stdout.decode().strip() == "done atoll-secret-", result
    assert f"Bearer {CANARY}".encode() in heard[0]
    curl = ("curl", "-sS", "-m", "10", "-H", "Authorization: Bearer x", "https://api.example/")
    result = await world.runtime.sidekick(sandbox).run(ProcessSpec(argv=curl, timeout_s=20))
    assert result.stdout == b"done", result
    # nowhere inside: no environment, no file, no memory that a program could read
    look = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; grep -rsl canary-7f3a /run /tmp /home /etc; true"
    result = await world.runtime.sidekick(sandbox).run(ProcessSpec(argv=("sh", "-c", look), timeout_s=20))
    assert b"atoll-secret-" in result.stdout and CANARY.encode()[:-2] not in result.stdout
    # a new value counts from the next connection on
    await world.secrets.change(ALICE, "TOKEN", value=b"second-value")
    await world.runtime.sidekick(sandbox).run(spec)
    assert b"second-value" in heard[-1]
    # and with its secret gone nothing goes there at all
    await world.secrets.delete(ALICE, "TOKEN")
    result = await world.runtime.sidekick(sandbox).run(spec)
    assert result.exit.code != 0 and len(heard) == 3


async def test_a_brokered_secret_needs_a_list(world: World) -> None:
    await world.secrets.create(ALICE, "TOKEN", b"value", hosts=["api.example"])
    with pytest.raises(InvalidInput) as caught:
        await world.sandboxes.create(ALICE, SandboxSpec(secrets=(SecretUse("TOKEN", GivenAs.BROKER),)))
    assert caught.value.field == "secrets"


async def test_a_brokered_secret_needs_its_host_on_the_list(world: World) -> None:
    await world.secrets.create(ALICE, "TOKEN", b"value", hosts=["api.example"])
    uses = (SecretUse("TOKEN", GivenAs.BROKER),)
    with pytest.raises(InvalidInput, match=r"for api\.example, .*other\.example") as caught:
        await world.create("other.example", secrets=uses)
    assert caught.value.field == "secrets"
