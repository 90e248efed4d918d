"""/api/webhooks: signed calls to a real receiver, in order, at least once, tried again; never inside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from atoll.domain.event import Event
from atoll.services.identity.principals import Principals
from atoll.services.webhooks.delivering import Deliveries, DeliveryLimits
from atoll.services.webhooks.owners import Owners
from atoll.surfaces.computesdk.events import event_answer
from tests.surfaces.conftest import ALICE as ALICE_KEY
from tests.surfaces.conftest import House, Opener

ALICE = "key_a11ce0000000"
OUTBOUND = {"networks": ["127.0.0.0/8"]}
QUICK = {"first_retry_s": 0.1}


@dataclass
class Receiver:
    """Answers each call with the next of `statuses`, then with 204."""

    port: int = 0
    statuses: list[int] = field(default_factory=list[int])
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list[tuple[dict[str, str], bytes]])
    pause_s: float = 0.0
    begun: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?x=1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.answer(reader, writer))
        self.tasks.add(task)
        await asyncio.wait((task,))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = await reader.readexactly(int(headers["content-length"]))
        self.begun += 1
        try:
            await asyncio.sleep(self.pause_s)
        except asyncio.CancelledError:
            writer.close()
            raise
        self.calls.append((headers, body))
        status = self.statuses.pop(0) if self.statuses else 204
        location = "location: http://127.0.0.1:1/\r\n" if 300 <= status < 400 else ""
        writer.write(f"HTTP/1.1 {status} x\r\n{location}content-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    @property
    def told(self) -> list[str]:
        return [json.loads(body)["data"]["target"] for _, body in self.calls]

    async def has(self, count: int) -> list[str]:
        await until(lambda: len(self.calls) >= count)
        return self.told

    async def reached(self, count: int) -> None:
        await until(lambda: self.begun >= count)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def seen(house: House, hook: dict[str, Any], holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The webhook, once that holds."""
    async with asyncio.timeout(20):
        while True:
            found = (await house.call("GET", f"/api/webhooks/{hook['id']}", ALICE_KEY)).json()
            if holds(found):
                return found
            await asyncio.sleep(0.05)


@asynccontextmanager
async def receiving(**changes: Any) -> AsyncIterator[Receiver]:
    receiver = Receiver(**changes)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in receiver.tasks:
            task.cancel()
        if receiver.tasks:
            await asyncio.wait(receiver.tasks)


async def made(house: House, url: str, key: str, status: int = 201, **body: Any) -> dict[str, Any]:
    answer = await house.call("POST", "/api/webhooks", key, json={"url": url, "events": ["file.*"]} | body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def happen(house: House, *targets: str, tenant: str = ALICE) -> None:
    for target in targets:
        await house.records.add_events([Event("file.changed", target, tenant, tenant)])


async def test_events_are_told_in_order_signed_as_the_standard_says(open_house: Opener, keys: Any) -> None:
    async with open_house(outbound=OUTBOUND) as house, receiving() as receiver:
        await happen(house, "before")
        hook = await made(house, receiver.url, keys.ALICE)
        await happen(house, "other", tenant="key_b0b000000000")
        await happen(house, "a", "b", "c")
        await house.records.add_events([Event("sandbox.created", "not wanted", ALICE, ALICE)])
        assert await receiver.has(3) == ["a", "b", "c"]
        verifier = Verifier(hook["secret"])
        for headers, body in receiver.calls:
            message = verifier.verify(body, headers)
            assert message["type"] == "file.changed"
            assert headers["webhook-id"] == f"evt_{message['data']['id']}"
            with pytest.raises(WebhookVerificationError):
                verifier.verify(body + b" ", headers)
        shown = await seen(house, hook, lambda one: one["delivered_at"])
        assert "secret" not in shown
        assert (shown["failures"], shown["last_error"]) == (0, None)


async def test_a_failed_call_is_made_again_with_the_same_id_and_nothing_overtakes_it(
    open_house: Opener, keys: Any
) -> None:
    async with open_house(outbound=OUTBOUND, webhooks=QUICK) as house, receiving(statuses=[500, 302]) as receiver:
        await made(house, receiver.url, keys.ALICE)
        await happen(house, "a", "b")
        assert await receiver.has(4) == ["a", "a", "a", "b"]
        assert len({headers["webhook-id"] for headers, _ in receiver.calls}) == 2
        text = ""
        async with asyncio.timeout(10):  # the last is counted once its answer has come
            while 'webhook_deliveries_total{outcome="ok"} 2.0' not in text:
                text = (await house.call("GET", "/metrics")).text
        assert 'webhook_deliveries_total{outcome="failed"} 2.0' in text


async def test_what_was_not_told_is_told_after_a_restart(open_house: Opener, keys: Any) -> None:
    async with open_house(outbound=OUTBOUND, webhooks=QUICK) as house, receiving() as receiver:
        await made(house, receiver.url, keys.ALICE)
        await happen(house, "a")
        await receiver.has(1)
        receiver.pause_s = 30
        await happen(house, "b")
        await receiver.reached(2)
        app = house.app
        await app.deliveries.close()
        receiver.pause_s = 0
        await happen(house, "c")
        limits = DeliveryLimits()
        stands = Owners(app.records, Principals(app.records), app.connected.scopes_left).why_not
        again = Deliveries(app.records, app.vault, app.outbound, event_answer, stands, app.metrics, limits)
        again.start()
        assert await receiver.has(3) == ["a", "b", "c"]
        await again.close()


async def test_one_that_fails_for_too_long_is_disabled_and_goes_on_when_it_is_enabled(
    open_house: Opener, keys: Any
) -> None:
    limits = QUICK | {"give_up_after_s": 1.0}
    async with open_house(outbound=OUTBOUND, webhooks=limits) as house, receiving(statuses=[500] * 50) as receiver:
        hook = await made(house, receiver.url, keys.ALICE)
        await happen(house, "a")
        path = f"/api/webhooks/{hook['id']}"
        ended = await seen(house, hook, lambda one: not one["enabled"])
        assert "it answered 500" in ended["disabled_why"]
        (event,) = [one for one in await house.records.list_events(target=hook["id"]) if one.outcome == "failed"]
        assert (event.action, event.tenant, event.actor) == ("webhook.disabled", ALICE, "system")
        receiver.statuses.clear()
        before = len(receiver.calls)
        assert (await house.call("PATCH", path, keys.ALICE, json={"enabled": True})).json()["failures"] == 0
        assert (await receiver.has(before + 1))[-1] == "a"


async def test_a_receiver_that_says_gone_is_called_no_more(open_house: Opener, keys: Any) -> None:
    async with open_house(outbound=OUTBOUND, webhooks=QUICK) as house, receiving(statuses=[410]) as receiver:
        hook = await made(house, receiver.url, keys.ALICE)
        await happen(house, "a")
        await seen(house, hook, lambda one: not one["enabled"])
        assert len(receiver.calls) == 1


async def test_a_receiver_that_hangs_holds_up_nobody_else(open_house: Opener, keys: Any) -> None:
    limits = QUICK | {"timeout_s": 0.5}
    async with (
        open_house(outbound=OUTBOUND, webhooks=limits) as house,
        receiving(pause_s=30) as slow,
        receiving() as receiver,
    ):
        stuck = await made(house, slow.url, keys.ALICE)
        await made(house, receiver.url, keys.ALICE)
        await happen(house, "a")
        assert await receiver.has(1) == ["a"]
        held = await seen(house, stuck, lambda one: one["failures"])
        assert "did not answer within" in held["last_error"]


async def test_a_revoked_owner_is_told_of_nothing(open_house: Opener, keys: Any) -> None:
    async with open_house(outbound=OUTBOUND) as house, receiving() as receiver:
        hook = await made(house, receiver.url, keys.ALICE)
        stored = await house.records.get_key(ALICE)
        assert stored is not None
        revoked = replace(stored, revoked_at=stored.created_at + timedelta(seconds=1))
        await house.records.swap_key(revoked, Event("key.revoked", ALICE, ALICE, "cli"))
        await happen(house, "a")
        await seen(house, hook, lambda one: not one["enabled"])
        assert receiver.calls == []


async def test_a_revoked_owner_is_told_of_nothing_although_a_key_that_it_made_is_left(
    open_house: Opener, keys: Any
) -> None:
    async with open_house(outbound=OUTBOUND) as house, receiving() as receiver:
        hook = await made(house, receiver.url, keys.ALICE)
        child = await house.call("POST", "/api/keys", keys.ALICE, json={"name": "child", "scopes": ["read"]})
        assert child.status_code == 201
        stored = await house.records.get_key(ALICE)
        assert stored is not None
        revoked = replace(stored, revoked_at=stored.created_at + timedelta(seconds=1))
        await house.records.swap_key(revoked, Event("key.revoked", ALICE, ALICE, "cli"))
        await happen(house, "a")
        await seen(house, hook, lambda one: not one["enabled"])
        assert receiver.calls == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://user@example.com/",
        "https://0.0.0.0/",
        "file:///etc/passwd",
        "nothing",
    ],
)
async def test_n08_a_webhook_never_leads_inside(house: House, keys: Any, url: str) -> None:
    answer = await made(house, url, keys.ALICE, 400)
    assert "url" in answer["message"] or "address" in answer["message"]
    assert (await house.call("GET", "/api/webhooks", keys.ALICE)).json() == {"webhooks": []}


async def test_a_secret_is_told_once_and_kept_wrapped(open_house: Opener, keys: Any) -> None:
    async with open_house(outbound=OUTBOUND) as house, receiving() as receiver:
        hook = await made(house, receiver.url, keys.ALICE)
        renewed = await house.call("POST", f"/api/webhooks/{hook['id']}/secret", keys.ALICE)
        assert renewed.json()["secret"] != hook["secret"]
        await happen(house, "a")
        await receiver.has(1)
        headers, body = receiver.calls[0]
        Verifier(renewed.json()["secret"]).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Verifier(hook["secret"]).verify(body, headers)
        everything = repr(await house.records.list_events())
        assert "whsec_" not in everything
        assert receiver.url not in everything


async def test_webhooks_are_their_owners(house: House, keys: Any) -> None:
    hook = await made(house, "https://example.com/hook", keys.ALICE)
    path = f"/api/webhooks/{hook['id']}"
    unknown = "/api/webhooks/hook_000000000000000000000000"
    for method, more in (("GET", {}), ("PATCH", {"json": {}}), ("DELETE", {})):
        mine = await house.call(method, path, keys.BOB, **more)
        nobodys = await house.call(method, unknown, keys.BOB, **more)
        assert (mine.status_code, mine.content) == (nobodys.status_code, nobodys.content) == (404, mine.content)
    assert (await house.call("DELETE", path, keys.READER)).status_code == 403
    await made(house, "https://example.com/", keys.ALICE, 403, all_tenants=True)
    await made(house, "https://example.com/", keys.ALICE, 400, group_id="grp_000000000000000000000000")
    await made(house, "https://example.com/", keys.ALICE, 400, events=["Nonsense!"])
    await made(house, "https://example.com/", keys.ALICE, 400, events=[])
    changed = await house.call(
        "PATCH", path, keys.ALICE, json={"events": ["a.b"], "description": "d", "enabled": False}
    )
    assert changed.json()["events"] == ["a.b"]
    assert changed.json()["disabled_why"] == "switched off"
    assert (await house.call("DELETE", path, keys.ALICE)).json() == {"deleted": True}
    actions = [one.action for one in await house.records.list_events(target=hook["id"]) if one.outcome == "ok"]
    assert actions == ["webhook.created", "webhook.changed", "webhook.deleted"]


async def test_an_owner_has_so_many_and_no_more(open_house: Opener, keys: Any) -> None:
    async with open_house(webhooks={"max_per_owner": 1}) as house:
        await made(house, "https://example.com/", keys.ALICE)
        answer = await made(house, "https://example.com/", keys.ALICE, 429)
        assert "webhook limit reached (1/1)" in answer["message"]
