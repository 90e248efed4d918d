"""N12 in a real browser: what hostile pages of a preview try on their neighbours, on the API and on its credentials."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.surfaces.previews.browser import CHROMIUM, Browser, chromium, tab
from tests.surfaces.previews.conftest import Heard, Program, Street, Streets, heard

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: the package of Debian has it")

DOMAIN = {"previews": {"domain": "box.localhost"}}  # names below localhost are loopback, and secure, to browsers
WORKER = "self.addEventListener('fetch', asked => asked.respondWith(new Response('of the worker')))"
REGISTER = "navigator.serviceWorker.register('sw.js', {scope: '%s'}).then(made => made.scope)"
ASK = "fetch('%s', {credentials: 'include'}).then(answer => answer.text())"
FRAME = """new Promise(done => {
  const frame = document.createElement('iframe')
  frame.onload = () => done(frame.contentDocument === null)
  frame.src = '%s'
  document.body.append(frame)
})"""


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
async def page(devtools: str) -> AsyncIterator[Browser]:
    async with tab(devtools) as opened:
        yield opened


def hostile(found: list[Heard]) -> Program:
    """Anything it answers asks for more than is its own."""

    async def program(reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            asked = await heard(reader)
            found.append(asked)
            kind, body = ("text/javascript", WORKER) if "/sw.js" in asked.line else ("text/html", "a secret")
            writer.write(
                f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
                "access-control-allow-origin: *\r\nservice-worker-allowed: /\r\n"
                "set-cookie: wide=1; domain=box.localhost; path=/\r\nset-cookie: atoll_session=forged; path=/\r\n\r\n"
                f"{body}".encode()
            )
            await writer.drain()

    return program


def at(street: Street, name: str) -> str:
    """The origin of a name below localhost."""
    dashed = street.sandbox.replace("_", "-")
    return f"http://{name.format(dashed)}.localhost:{street.house.url.rpartition(':')[2]}"


async def opened(street: Street, page: Browser, port: int) -> str:
    """Look at a preview with a token in its address; the origin."""
    origin = at(street, f"{port}-{{}}.box")
    await page.go(f"{origin}/?preview_token={await street.token(port=port)}")
    assert await page.run("document.body.textContent") == "a secret"
    assert await page.run("location.href") == origin + "/"
    return origin


async def test_n12_a_hostile_page_gets_at_nothing_but_its_own(open_street: Streets, page: Browser) -> None:
    async with open_street(more_settings=DOMAIN) as street:
        evil, victim = list[Heard](), list[Heard]()
        street.serve(hostile(evil))
        street.serve(hostile(victim), port=3001)
        for port in (3000, 3001):
            await street.register(port=port)
        link = await street.house.call("POST", f"/sb/{street.sandbox}/auth/magic-links", json={})
        api, box = at(street, "atoll"), at(street, "{}.box")
        await page.go(box + "/auth/magic?token=" + link.json()["data"]["magic_url"].partition("token=")[2])
        assert await page.run("location.pathname") == "/play/"
        neighbour = await opened(street, page, 3001)
        own = await opened(street, page, 3000)

        assert (await page.run("origin"), await page.run("isSecureContext")) == (own, True)
        for cookie in ("tossed=1", "atoll_preview=tossed", "atoll_session=tossed"):
            await page.run(f"document.cookie = '{cookie}; domain=box.localhost; path=/'")
        seen = await page.run("document.cookie")
        assert "tossed=1" in seen and "eyJ" not in seen and "sbt_" not in seen, "no credential is to be read"
        assert await page.run(ASK % "/v1/sessions") == "a secret", "its own, and not the API's"
        for there in (api + "/v1/sessions", neighbour + "/", box + "/"):
            assert await page.run(ASK % there) == "refused: TypeError", there
        await page.run(f"fetch('{neighbour}/pay', {{method: 'POST', mode: 'no-cors', credentials: 'include'}})")
        assert not [one for one in victim if one.line.startswith("POST")], "nobody acts with a neighbour's cookie"
        for there in (api + "/docs", box + "/", neighbour + "/"):
            assert await page.run(FRAME % there) is True, there
        assert await page.blocked() == {api + "/docs", box + "/"}

        assert await page.run(REGISTER % "/") == own + "/"
        assert await page.run("navigator.serviceWorker.ready.then(() => true)") is True
        await page.go(own + "/again")
        assert await page.run("document.body.textContent") == "of the worker"
        for there, title in ((neighbour + "/", "a secret"), (api + "/health", "healthy")):
            await page.go(there)
            assert await page.run("navigator.serviceWorker.controller") is None
            assert title in await page.run("document.body.textContent")

        cookies = (await page.call("Network.getAllCookies"))["cookies"]
        assert {one["domain"] for one in cookies if one["name"] == "wide"} == {
            own.split("/")[2].rpartition(":")[0], neighbour.split("/")[2].rpartition(":")[0],
        }  # fmt: skip
        assert "forged" not in {one["value"] for one in cookies}
        for one in evil + victim:
            assert "atoll_" not in one.headers.get("cookie", "") and "preview_token" not in one.line


async def test_n12_a_page_by_path_has_no_part_in_the_apis_origin(open_street: Streets, page: Browser) -> None:
    async with open_street(more_settings=DOMAIN) as street:
        street.serve(hostile([]))
        await street.register(public=True)
        api = at(street, "atoll")
        await page.go(api + street.path())
        assert await page.run("origin") == "null"
        assert await page.run("document.cookie") == await page.run("localStorage.length") == "refused: DOMException"
        assert await page.run(REGISTER % "/") == "refused: DOMException"
        for there in ("/v1/sessions", "/openapi.json", street.path("/own")):
            assert await page.run(ASK % there) == "refused: TypeError", there
        await page.go(api + "/health")
        assert await page.run("navigator.serviceWorker.controller") is None


async def test_n12_a_worker_of_a_trusted_page_by_path_stays_below_it(open_street: Streets, page: Browser) -> None:
    async with open_street() as street:
        street.serve(hostile([]))
        await street.register(public=True)
        api = at(street, "atoll")
        await page.go(api + street.path())
        assert await page.run("origin") == api, "it was said to be trusted"
        assert await page.run(REGISTER % "/") == "refused: DOMException"
        assert await page.run(REGISTER % street.path()) == api + street.path()
        assert await page.run("navigator.serviceWorker.ready.then(() => true)") is True
        await page.go(api + "/health")
        assert await page.run("navigator.serviceWorker.controller") is None
