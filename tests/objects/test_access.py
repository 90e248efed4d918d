"""Who gets through the object-store door, and to what: signatures, access keys, tenancy, scopes and the audit trail."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from atoll.domain.key import Scope

from .conftest import Opener, Store
from .signing import BUCKET, Client, code

PATH = f"/{BUCKET}/p/a"


async def test_nobody_gets_in_without_a_signature(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"1")
    for method in ("GET", "PUT", "DELETE", "POST"):
        answer = await store.http.request(method, store.url + PATH)
        assert (answer.status_code, code(answer)) == (401, "AuthenticationRequired"), method
    assert (await store.http.head(store.url + PATH)).status_code == 401
    _, text = await store.key("bob")
    answer = await store.http.get(store.url + PATH, headers={"authorization": f"Bearer {text}", "x-api-key": text})
    assert answer.status_code == 400
    answer = await store.http.get(store.url + PATH, headers={"x-api-key": text})
    assert answer.status_code == 401


@pytest.mark.parametrize("scheme", ["GOOG1", "AWS"])
async def test_both_forms_of_the_signature_hold(store: Store, scheme: str) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"1")
    signed = alice.signed("GET", PATH, scheme=scheme)
    assert (await store.http.get(store.url + PATH, headers=signed)).content == b"1"


async def test_what_was_signed_opens_nothing_else(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"1")
    signed = alice.signed("GET", PATH)
    forged: list[tuple[str, str, dict[str, str]]] = [
        ("DELETE", PATH, signed),
        ("GET", f"/{BUCKET}/p/b", signed),
        ("GET", PATH + "?acl", signed),
        ("GET", PATH, signed | {"x-goog-meta-a": "b"}),
        ("GET", PATH, signed | {"content-type": "text/plain"}),
        ("GET", PATH, signed | {"authorization": signed["authorization"][:-4] + "AAA="}),
        ("GET", PATH, replace(alice, secret="x").signed("GET", PATH)),
        ("GET", PATH, replace(alice, access="hmac_" + "0" * 24).signed("GET", PATH)),
    ]
    for method, path, headers in forged:
        answer = await store.http.request(method, store.url + path, headers=headers)
        assert (answer.status_code, code(answer)) == (403, "SignatureDoesNotMatch"), (method, path)
    assert (await alice.call("GET", "p/a")).content == b"1"


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(hours=1)])
async def test_an_old_signature_is_refused(store: Store, off: timedelta) -> None:
    alice = await store.alice()
    moment = format_datetime(datetime.now(UTC) + off, usegmt=True)
    signed = alice.signed("GET", PATH, date=moment)
    answer = await store.http.get(store.url + PATH, headers=signed)
    assert (answer.status_code, code(answer)) == (403, "RequestTimeTooSkewed")


@pytest.mark.parametrize(
    "header", ["GOOG1", "GOOG1 a", "GOOG1 :x", "GOOG4-HMAC-SHA256 x", "Basic YTpi", "GOOG1 " + "a" * 200 + ":x"]
)
async def test_what_is_no_signature_says_what_one_is(store: Store, header: str) -> None:
    answer = await store.http.get(store.url + PATH, headers={"authorization": header})
    assert (answer.status_code, code(answer)) == (400, "InvalidArgument")


async def test_another_tenants_workspace_is_an_unknown_one(store: Store) -> None:
    alice, bob = await store.alice(), await store.alice("bob")
    await alice.put("p/a", b"alice's")
    [workspace] = [one for one in store.records._workspaces.values() if one.name == "p"]
    for known, unknown in ((workspace.id, "ws_" + "0" * 32), ("p", "q")):
        for method in ("GET", "HEAD", "DELETE"):
            mine, other = await bob.call(method, f"{known}/a"), await bob.call(method, f"{unknown}/a")
            assert (mine.status_code, mine.content) == (other.status_code, other.content)
            assert mine.status_code == 404
        assert await bob.keys(f"prefix={known}/") == await bob.keys(f"prefix={unknown}/") == []
    assert await bob.keys("") == []
    mine, other = await bob.put(f"{workspace.id}/a", b"forged"), await bob.put(f"ws_{'0' * 32}/a", b"forged")
    assert mine.status_code == other.status_code == 404
    assert mine.text == other.text.replace("ws_" + "0" * 32, workspace.id)
    assert (await bob.put("p/a", b"bob's")).status_code == 200  # a workspace of bob's own of that name
    assert (await alice.call("GET", "p/a")).content == b"alice's"
    assert (await bob.call("GET", "p/a")).content == b"bob's"


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE])
async def test_an_access_key_may_what_its_key_may(store: Store, scope: Scope) -> None:
    key, text = await store.key()
    alice = await store.client(text)
    await alice.put("p/a", b"1")
    made = await store.app.keys.create("narrow", scopes=frozenset({scope}), owner=key.owner, parent=key.id)
    narrow = await store.client(made.text)
    read, write = await narrow.call("GET", "p/a"), await narrow.put("p/b", b"2")
    assert (read.status_code, write.status_code) == ((200, 403) if scope is Scope.READ else (403, 200))
    refused = write if scope is Scope.READ else read
    assert code(refused) == "AccessDenied"


async def test_an_access_key_reaches_what_its_key_reaches(store: Store) -> None:
    key, text = await store.key()
    alice = await store.client(text)
    await alice.put("p/a", b"1")
    await alice.put("q/a", b"2")
    [workspace] = [one for one in store.records._workspaces.values() if one.name == "p"]
    made = await store.app.keys.create("bound", owner=key.owner, parent=key.id, resources=frozenset({workspace.id}))
    bound = await store.client(made.text)
    assert await bound.keys("") == ["p/a"]
    assert (await bound.call("GET", "q/a")).status_code == 404
    assert (await bound.put("r/a", b"3")).status_code == 403


async def _is_out(client: Client) -> bool:
    answer = await client.call("GET", "p/a")
    return (answer.status_code, code(answer)) == (403, "SignatureDoesNotMatch")


async def test_an_access_key_ends_with_its_key(store: Store) -> None:
    for end in ("revoke", "rotate", "delete"):
        key, text = await store.key(end)
        client = await store.client(text)
        assert (await client.put("p/a", b"1")).status_code == 200
        await getattr(store.app.keys, end)(key.id)
        assert await _is_out(client), end
    assert await store.records.list_access_keys(key=key.id) == []


async def test_an_ended_access_key_opens_nothing_and_others_go_on(store: Store) -> None:
    _, text = await store.key()
    one, two = await store.client(text), await store.client(text)
    await one.put("p/a", b"1")
    headers = {"authorization": f"Bearer {text}"}
    listed = (await store.http.get(f"{store.api}/api/access-keys", headers=headers)).json()["access_keys"]
    assert [shown["id"] for shown in listed] == [one.access, two.access]
    assert all("secret" not in shown for shown in listed)
    ended = await store.http.delete(f"{store.api}/api/access-keys/{one.access}", headers=headers)
    assert ended.status_code == 200
    assert await _is_out(one)
    assert (await two.call("GET", "p/a")).status_code == 200
    again = await store.http.delete(f"{store.api}/api/access-keys/{one.access}", headers=headers)
    assert again.status_code == 404


async def test_a_key_has_so_many_access_keys_and_no_more(store: Store) -> None:
    _, text = await store.key()
    for _ in range(8):
        await store.client(text)
    more = await store.http.post(f"{store.api}/api/access-keys", headers={"authorization": f"Bearer {text}"})
    assert more.status_code == 429


async def test_changes_through_the_door_are_in_the_audit_trail(store: Store) -> None:
    key, text = await store.key()
    alice = await store.client(text)
    await alice.put("p/a", b"1")
    await alice.put("p/a", b"2")
    await alice.call("DELETE", "p/a")
    await alice.put("p/.home/x", b"1")
    await store.http.put(store.url + PATH, content=b"1")
    await store.app.audit.requests.flush()
    events = await store.records.list_events(limit=1000)
    by_action: dict[str, Any] = {one.action: one for one in events}
    assert by_action["access_key.created"].target == alice.access
    assert by_action["workspace.created"].credential == key.id
    assert by_action["object.written"].target == "p/a"
    removed = by_action["object.removed"]
    assert (removed.target, removed.actor, removed.credential) == ("p/a", key.id, key.id)
    refused = [(one.target, one.actor) for one in events if one.action == "request.refused"]
    assert sorted(refused) == [("p/.home/x", key.id), ("p/a", "anonymous")]
    assert not any(alice.secret in repr(one) for one in events)


async def test_whoever_asks_too_often_is_told_to_slow_down(open_store: Opener) -> None:
    async with open_store(rates={"objects": {"key_per_s": 0.001, "key_burst": 3}}) as store:
        alice = await store.alice()
        answers = [await alice.call("HEAD", "p/a") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [404] * 3 + [503]
        slow = await alice.call("GET", "p/a")
        assert (slow.status_code, code(slow)) == (503, "SlowDown")
        assert int(slow.headers["retry-after"]) > 0


async def test_who_may_not_write_there_takes_no_turn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = await store.alice("bob")
    monkeypatch.setattr("atoll.services.objects.turns.Turns.turn", None)  # whoever asks for one fails
    refused = await bob.put(f"ws_{'0' * 32}/a", b"2")
    assert (refused.status_code, code(refused)) == (404, "NoSuchKey"), refused.text
