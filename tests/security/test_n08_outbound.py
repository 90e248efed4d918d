"""N08: URLs that others gave us lead nowhere inside, hold nobody up, fill no memory, and tell nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from atoll.domain.addresses import is_public
from atoll.domain.errors import AtollError, DeadlineExceeded, InvalidInput, TooLarge, Unavailable
from atoll.services.outbound import AddressRefused, Outbound, OutboundLimits, Resolve
from tests.certificates import Authority

LOOPBACK = (ip_network("127.0.0.0/8"),)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def names(**known: list[str]) -> Resolve:
    """A resolver that knows these names below `.example`, and counts nothing else as one."""

    async def resolve(host: str, port: int) -> list[str]:
        if host.removesuffix(".example") not in known:
            raise OSError("unknown name")
        return known[host.removesuffix(".example")]

    return resolve


@asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """A server on loopback; its port."""
    open_writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.append(writer)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_writers:
            writer.transport.abort()
        await server.wait_closed()


def answering(text: bytes, seen: list[bytes] | None = None) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(text)
        await writer.drain()

    return handler


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    """As a server has it when nothing is set."""
    one = Outbound()
    yield one
    await one.close()


@asynccontextmanager
async def allowing(resolve: Resolve | None = None, **limits: float) -> AsyncGenerator[Outbound]:
    one = Outbound(OutboundLimits(networks=LOOPBACK, **limits), resolve)  # type: ignore[arg-type]
    try:
        yield one
    finally:
        await one.close()


HOSTS = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "017700000001", "0x7f.0.0.1", "127.0.0.1."),
    *("0.0.0.0", "0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200", "168.63.129.16"),
    *("198.18.0.1", "224.0.0.1", "255.255.255.255", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
    *("[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::1]", "[2001:0:7f00:1::1]"),
    *("[fe80::1]", "[fe80::1%25lo]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[fec0::1]", "localhost"),
    *("127。0。0。1", "１２７.0.0.1", "①②⑦.0.0.1", "%31%32%37.0.0.1", "localhost%00.example", "127.0.0.1%2f.example"),
]


@pytest.mark.parametrize("host", HOSTS)
async def test_n08_no_way_to_write_a_host_leads_inside(outbound: Outbound, host: str) -> None:
    reached: list[bytes] = []
    async with listening(answering(b"", reached)) as port:
        for scheme in ("http", "https"):
            for url in (f"{scheme}://{host}:{port}/", f"{scheme}://example.com@{host}:{port}/"):
                with pytest.raises(InvalidInput):
                    await outbound.request("GET", url)
    assert reached == []


@pytest.mark.parametrize(
    "url",
    [
        *("", "/", "//127.0.0.1/", "https:", "https://", "https:///path", "https:/one", "https://:443/", "https://?q"),
        *("ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "data:text/plain,x", "HTTPS//example"),
        *("https://example.com@127.0.0.1/", "https://user:word@example.com/", "https://@example.com/"),
        *("https://example.com\\@127.0.0.1/", "https://example.com#@127.0.0.1/", "https://example.com /"),
        *("https://exa\tmple.com/", "https://example.com/\r\nHost:x", "https://example.com:0/", "https://e.com:99999/"),
        *("https://e.com:x/", "https://-a.com/", "https://a..com/", "https://a_b.com/", "https://[127.0.0.1]/"),
        *("https://[::1/", "https://1.2.3/", "https://1.2.3.4.5/", "https://a.0x7f/", "https://a.7/"),
        *("https://example.com/a\\b", "https://example.com/a#b", "https://example.com/" + "a" * 3_000),
    ],
)
async def test_n08_an_odd_url_is_refused_before_anything_happens(outbound: Outbound, url: str) -> None:
    with pytest.raises(InvalidInput) as stored:
        outbound.check(url, "callback")
    assert stored.value.field == "callback"
    with pytest.raises(InvalidInput):
        await outbound.request("POST", url)


@pytest.mark.parametrize("url", ["https://example.com", "https://example.com:8443/a?b=c", "https://[2606:4700::1]/"])
async def test_a_usual_url_may_be_stored(outbound: Outbound, url: str) -> None:
    assert outbound.check(url).scheme == "https"


async def test_n08_without_tls_nothing_is_called(outbound: Outbound) -> None:
    with pytest.raises(InvalidInput, match=r"https.*outbound\.networks"):  # which is what would let it
        outbound.check("http://example.com/")
    with pytest.raises(InvalidInput):
        await outbound.request("POST", "http://1.1.1.1/")


async def test_n08_a_name_is_judged_by_every_address_that_it_has() -> None:
    inside = {"loop": ["127.0.0.1"], "six": ["::1"], "cloud": ["169.254.169.254"], "mixed": ["1.1.1.1", "10.0.0.1"]}
    one = Outbound(resolve=names(**inside, none=[]))
    said: set[str] = set()
    for name in (*inside, "none", "unknown"):
        with pytest.raises(AddressRefused) as refused:
            await one.request("POST", f"https://{name}.example/")
        said.add(refused.value.message.replace(name, "NAME"))
    await one.close()
    assert len(said) == 1, "one may not learn which names are known inside"
    assert "outbound.networks" in said.pop()


async def test_n08_the_address_that_was_checked_is_the_one_that_is_called() -> None:
    """A name that resolves to another address each time."""
    asked: list[str] = []
    heads: list[bytes] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    async with listening(answering(b"HTTP/1.1 204 No Content\r\n\r\n", heads)) as port, allowing(rebinding) as one:
        assert (await one.request("POST", f"http://name.example:{port}/hook?a=b")).status == 204
        with pytest.raises(AddressRefused):
            await one.request("POST", f"http://name.example:{port}/hook?a=b")
    assert asked == ["name.example"] * 2
    assert heads[0].startswith(b"POST /hook?a=b HTTP/1.1\r\n")
    assert f"host: name.example:{port}\r\n".encode() in heads[0].lower()


async def test_n08_no_redirect_is_followed() -> None:
    reached: list[bytes] = []
    async with listening(answering(b"HTTP/1.1 200 OK\r\n\r\n", reached)) as inside:
        moved = f"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:{inside}/\r\nContent-Length: 0\r\n\r\n"
        async with listening(answering(moved.encode())) as port, allowing() as one:
            answer = await one.request("POST", f"http://127.0.0.1:{port}/", body=b"{}")
    assert (answer.status, answer.ok, reached) == (307, False, [])


async def test_n08_a_slow_answer_ends_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def endless_interim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    for handler in (drip, endless_interim, silent):
        async with listening(handler) as port, allowing(timeout_s=0.3) as one:
            with pytest.raises(DeadlineExceeded):
                await one.request("GET", f"http://127.0.0.1:{port}/")


async def test_n08_a_resolver_that_hangs_ends_at_the_deadline() -> None:
    async def hanging(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with allowing(hanging, timeout_s=0.2) as one:
        with pytest.raises(DeadlineExceeded):
            await one.request("GET", "https://name.example/")


async def test_n08_slow_urls_of_others_keep_nobody_from_the_operators_own() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    quick = answering(b"HTTP/1.1 204 X\r\n\r\n")
    async with listening(silent) as slow, listening(quick) as port, allowing(at_once=2) as one:
        stuck = [asyncio.create_task(one.request("GET", f"http://127.0.0.1:{slow}/")) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(DeadlineExceeded):
            await one.request("GET", f"http://127.0.0.1:{port}/", timeout_s=0.2)
        assert (await one.request("GET", f"http://localhost:{port}/", own=True, timeout_s=5)).status == 204
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_n08_a_huge_answer_is_cut_off() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
            await writer.drain()

    async def huge_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"A: " + b"x" * 0x1000 + b"\r\n")
            await writer.drain()

    async with allowing(answer_bytes=10_000) as one:
        async with listening(flood) as port:
            with pytest.raises(TooLarge):
                await one.request("GET", f"http://127.0.0.1:{port}/")
        async with listening(huge_head) as port:
            with pytest.raises(Unavailable):
                await one.request("GET", f"http://127.0.0.1:{port}/")


async def test_n08_an_error_tells_nothing_of_the_answer_or_of_the_path() -> None:
    secrets = [
        b"SECRET-ANSWER\r\n\r\n",
        b"HTTP/1.1 2x0 SECRET-ANSWER\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSECRET-ANSWER\r\n\r\n",
        b"",
    ]
    for text in secrets:
        async with listening(answering(text)) as port, allowing() as one:
            with pytest.raises(AtollError) as failed:
                await one.request("GET", f"http://127.0.0.1:{port}/SECRET-PATH?SECRET-QUERY")
            assert "SECRET" not in failed.value.message
            assert f"127.0.0.1:{port}" in failed.value.message


async def test_n08_the_operators_own_urls_may_lead_inside_but_only_to_loopback_without_tls() -> None:
    one = Outbound(resolve=names(near=["10.0.0.1"]))
    async with listening(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as port:
        url = f"http://127.0.0.1:{port}/"
        assert (await one.request("GET", url, own=True)).body == b"{}"
        with pytest.raises(AddressRefused):
            await one.request("GET", url)
    with pytest.raises(AddressRefused):
        await one.request("GET", "http://near.example/", own=True)
    await one.close()


async def test_n08_who_answers_at_the_address_must_prove_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    known = names(right=["127.0.0.1"], wrong=["127.0.0.1"])
    handler = answering(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with listening(handler, authority.server("right.example")) as port:
        async with allowing(known) as one:
            with pytest.raises(Unavailable):
                await one.request("GET", f"https://right.example:{port}/")  # nobody here knows that authority
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with allowing(known) as one:
            assert (await one.request("GET", f"https://right.example:{port}/")).status == 204
            for name in ("wrong.example", "127.0.0.1"):
                with pytest.raises(Unavailable):
                    await one.request("GET", f"https://{name}:{port}/")


@pytest.mark.parametrize("text", ["1.1.1.1", "9.9.9.9", "172.15.0.1", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ip_address(text))
