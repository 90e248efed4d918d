"""Watchers, signals and overlays: what happens is told to who listens, and goes on in another life of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from atoll.domain.copied import CopyEnd
from atoll.domain.errors import Forbidden, InvalidInput, NotFound, QuotaExceeded
from atoll.services.daemon import noticed_ports, overlays, watchers
from atoll.services.daemon.hub import Listener
from atoll.services.daemon.noticed_ports import AT_ONCE_MAX, KEPT_S, NoticedPorts
from atoll.services.daemon.overlays import OverlaySpec
from atoll.services.daemon.port_urls import PortUrls
from tests.services.conftest import ALICE, BOB, READER, until
from tests.services.daemon.conftest import Kept


@pytest.fixture
def listener(kept: Kept) -> Iterator[Listener]:
    with kept.hubs.of(kept.id).listening(lambda _: None) as listener:
        yield listener


async def heard(listener: Listener, type: str) -> Any:
    """The next message of that type."""
    async with asyncio.timeout(5):
        while True:
            message = json.loads(await listener.next() or "null")
            if message["type"] == type:
                return message


async def write(kept: Kept, path: str, data: bytes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield data

    await kept.house.sandboxes.files.write(ALICE, kept.id, path, pieces())


async def test_a_watcher_tells_changes_with_their_content_to_its_channel(kept: Kept, listener: Listener) -> None:
    made = await kept.tools.watchers.add(ALICE, kept.id, "/tmp", include_content=True, ignored=["*.log"])
    channel = watchers.channel_of(made)
    assert (await heard(listener, "watcher:created"))["data"] == {"id": made.name, "path": "/tmp"}
    listener.channels.add(channel)
    await write(kept, "/tmp/a.log", b"no")
    await write(kept, "/tmp/a", b"text")
    message = await heard(listener, "file:changed")
    assert message["channel"] == channel
    assert message["data"] == {"event": "add", "path": "/tmp/a", "content": "text", "encoding": "raw"}
    await write(kept, "/tmp/b", b"\xff\xfe")
    assert (await heard(listener, "file:changed"))["data"]["encoding"] == "base64"
    await write(kept, "/tmp/c", b"x" * (watchers.CONTENT_BYTES + 1))
    assert "content" not in (await heard(listener, "file:changed"))["data"]
    await kept.tools.watchers.remove(ALICE, kept.id, made.name)
    assert (await heard(listener, "watcher:destroyed"))["data"] == {"id": made.name}
    assert await kept.tools.watchers.list(ALICE, kept.id) == []


async def test_watchers_and_signals_go_on_after_a_restart(kept: Kept, listener: Listener) -> None:
    made = await kept.tools.watchers.add(ALICE, kept.id, "/tmp")
    await kept.tools.signals.start(ALICE, kept.id, "http://there")
    listener.channels |= {watchers.channel_of(made), "signals"}
    await kept.restart()
    await asyncio.sleep(0.1)  # the watch is placed
    await write(kept, "/tmp/a", b"text")
    assert (await heard(listener, "file:changed"))["data"]["path"] == "/tmp/a"
    kept.house.host.sandboxes[kept.id].listening.add(8000)
    url = f"http://there/preview/{kept.id}/8000/"
    assert (await heard(listener, "signal"))["data"] == {"signal": "port", "port": 8000, "type": "open", "url": url}
    kept.house.host.sandboxes[kept.id].listening.discard(8000)
    assert (await heard(listener, "signal"))["data"]["type"] == "close"


async def test_watchers_have_bounds_and_tenants(kept: Kept) -> None:
    add = kept.tools.watchers.add
    with pytest.raises(NotFound):
        await add(ALICE, kept.id, "/none")
    with pytest.raises(InvalidInput, match="ignored"):
        await add(ALICE, kept.id, "/tmp", ignored=["x" * 300])
    with pytest.raises(NotFound):
        await add(BOB, kept.id, "/tmp")
    with pytest.raises(Forbidden):
        await add(READER, kept.id, "/tmp")
    for _ in range(watchers.PER_SANDBOX):
        await add(ALICE, kept.id, "/tmp")
    with pytest.raises(QuotaExceeded):
        await add(ALICE, kept.id, "/tmp")


async def test_signals_are_told_while_they_are_active_only(kept: Kept, listener: Listener) -> None:
    signals = kept.tools.signals
    listener.channels.add("signals")
    await signals.error(ALICE, kept.id, "before")
    await signals.start(ALICE, kept.id)
    await signals.start(ALICE, kept.id)
    assert await signals.active(READER, kept.id)
    await signals.error(ALICE, kept.id, "now")
    assert (await heard(listener, "signal"))["data"] == {"signal": "error", "message": "now"}
    assert await signals.server_ready(ALICE, kept.id, 3000, None) == f"http://atoll/preview/{kept.id}/3000/"
    assert (await heard(listener, "signal"))["data"]["signal"] == "server-ready"
    assert await signals.port(ALICE, kept.id, 3000, "open", "http://own/") == "http://own/"
    await signals.stop(ALICE, kept.id)
    await signals.stop(ALICE, kept.id)
    assert not await signals.active(ALICE, kept.id)
    for call in (
        lambda: signals.port(ALICE, kept.id, 0, "open", None),
        lambda: signals.port(ALICE, kept.id, 80, "other", None),
        lambda: signals.error(ALICE, kept.id, ""),
    ):
        with pytest.raises(InvalidInput):
            await call()


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "//evil", "http://", "http://[", "x" * 5000]
)
async def test_a_signal_carries_addresses_of_the_web_only(kept: Kept, url: str) -> None:
    with pytest.raises(InvalidInput, match="url"):
        await kept.tools.signals.port(ALICE, kept.id, 3000, "open", url)
    with pytest.raises(InvalidInput, match="url"):
        await kept.tools.signals.server_ready(ALICE, kept.id, 3000, url)


async def test_ports_that_come_and_go_take_few_previews_and_leave_none(kept: Kept) -> None:
    now, previews = 0.0, kept.previews
    urls = PortUrls(previews, "http://atoll")
    noticed = NoticedPorts(urls, ALICE, kept.id, None, lambda: now)
    await previews.register(ALICE, kept.id, 5000)  # which somebody asked for
    await noticed.begin(set())
    told = [await noticed.opened(port) for port in range(5000, 5000 + AT_ONCE_MAX + 3)]
    assert told[:2] == [f"http://atoll/preview/{kept.id}/{port}/" for port in (5000, 5001)]
    assert told[-2:] == ["", ""] and len(previews.registered) == 1 + AT_ONCE_MAX
    await previews.register(ALICE, kept.id, 5001, metadata={"mine": "yes"})
    for port in range(5000, 5004):
        assert noticed.closed(port) == f"http://atoll/preview/{kept.id}/{port}/"
    await noticed.opened(5003)  # it began anew
    assert await noticed.opened(9000) == ""
    now = KEPT_S
    assert await noticed.opened(9000) == f"http://atoll/preview/{kept.id}/9000/"
    assert {port for port in range(5000, 5005) if port in previews.registered} == {5000, 5001, 5003, 5004}

    another_life = NoticedPorts(urls, ALICE, kept.id, None, lambda: now)
    await another_life.begin({9000})
    now += KEPT_S
    await another_life.drop_closed()
    assert sorted(previews.registered) == [5000, 5001, 9000]


async def test_what_signals_notice_is_taken_away_once_it_is_closed(
    kept: Kept, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noticed_ports, "KEPT_S", 0.0)
    monkeypatch.setattr(noticed_ports, "SWEEP_S", 0.01)
    listener.channels.add("signals")
    await kept.tools.signals.start(ALICE, kept.id)
    await asyncio.sleep(0.1)  # the ports are followed
    kept.house.host.sandboxes[kept.id].listening.add(8000)
    await heard(listener, "signal")
    assert list(kept.previews.registered) == [8000]
    kept.house.host.sandboxes[kept.id].listening.discard(8000)
    await heard(listener, "signal")
    await until(lambda: _no_previews(kept))


async def test_nothing_of_its_signals_is_left_of_a_sandbox_that_has_ended(kept: Kept) -> None:
    signals = kept.tools.signals
    await signals.start(ALICE, kept.id)
    await kept.house.sandboxes.kill(ALICE, kept.id)
    await until(lambda: _gone(kept))
    assert signals._active == {}  # pyright: ignore[reportPrivateUsage]


async def test_an_overlay_copies_and_takes_away_what_it_made(kept: Kept) -> None:
    files = kept.house.sandboxes.files
    for path in ("/tmp/t/src/a", "/tmp/t/node_modules/x", "/tmp/t/skip.log", "/tmp/p/mine"):
        await write(kept, path, b"x")
    spec = OverlaySpec("/tmp/t", "/tmp/p", ("*.log",), "smart")
    made = await kept.tools.overlays.add(ALICE, kept.id, spec)
    await until(lambda: _copied(kept, made.name))
    found = (await kept.tools.overlays.get(READER, kept.id, made.name)).state
    assert (found["files"], found["folders"]) == (2, 1)
    entries = {one.name: one.kind for one in await files.list(ALICE, kept.id, "/tmp/p")}
    assert entries == {"mine": "file", "src": "directory", "node_modules": "symlink"}
    await kept.tools.overlays.remove(ALICE, kept.id, made.name)
    assert [one.name for one in await files.list(ALICE, kept.id, "/tmp/p")] == ["mine"]
    with pytest.raises(NotFound):
        await kept.tools.overlays.get(ALICE, kept.id, made.name)


async def test_of_the_list_of_an_overlay_that_is_removed_by_many_at_once_there_is_one(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(kept, "/tmp/t/a", b"x")
    made = await kept.tools.overlays.add(ALICE, kept.id, OverlaySpec("/tmp/t", "/tmp/p"))
    await until(lambda: _copied(kept, made.name))
    read, reads, copying = overlays._read, 0, kept.house.sandboxes.copying
    real = copying.uncopy

    def counted(path: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(path)

    async def uncopy(*args: Any) -> None:
        await asyncio.sleep(0.05)  # in which the others would read it
        await real(*args)

    monkeypatch.setattr(overlays, "_read", counted)
    monkeypatch.setattr(copying, "uncopy", uncopy)
    removals = (kept.tools.overlays.remove(ALICE, kept.id, made.name) for _ in range(5))
    results = await asyncio.gather(*removals, return_exceptions=True)
    assert [type(one) for one in results] == [type(None)] + 4 * [NotFound]
    assert reads == 1
    assert await kept.house.sandboxes.files.list(ALICE, kept.id, "/tmp/p") == []


async def test_what_is_removed_while_it_is_copied_leaves_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/tmp/t/src/a", "/tmp/t/b", "/tmp/p/mine"):
        await write(kept, path, b"x")
    copying, told = kept.house.sandboxes.copying, asyncio.Event()
    real = copying.copy

    async def copy(*args: Any, **more: Any) -> AsyncIterator[Any]:
        async for _ in real(*args, **more):
            told.set()
            await asyncio.Event().wait()  # what was made is not heard of
            yield []

    monkeypatch.setattr(copying, "copy", copy)
    made = await kept.tools.overlays.add(ALICE, kept.id, OverlaySpec("/tmp/t", "/tmp/p"))
    await asyncio.wait_for(told.wait(), 5)
    await kept.tools.overlays.remove(ALICE, kept.id, made.name)
    assert [one.name for one in await kept.house.sandboxes.files.list(ALICE, kept.id, "/tmp/p")] == ["mine"]


async def test_what_is_removed_is_not_copied_on_by_the_sandbox_that_wakes_for_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(kept, "/tmp/t/a", b"x")
    copying, copies, begun = kept.house.sandboxes.copying, 0, asyncio.Event()
    found = copying.found

    async def copy(*_: Any, **__: Any) -> AsyncIterator[Any]:
        nonlocal copies
        copies += 1
        begun.set()
        await asyncio.Event().wait()
        yield []

    async def woken(*args: Any, **more: Any) -> Any:
        await kept.tools._woken(kept.sandbox)
        await asyncio.sleep(0.05)  # in which a copy would begin
        return await found(*args, **more)

    monkeypatch.setattr(copying, "copy", copy)
    monkeypatch.setattr(copying, "found", woken)
    made = await kept.tools.overlays.add(ALICE, kept.id, OverlaySpec("/tmp/t", "/tmp/p"))
    await asyncio.wait_for(begun.wait(), 5)
    await kept.tools.overlays.remove(ALICE, kept.id, made.name)
    assert made.id not in kept.tools._fixtures._tasks
    assert copies == 1


async def test_the_lists_of_a_sandbox_are_bounded_and_what_found_no_room_is_taken_away_all_the_same(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/tmp/t/src/a", "/tmp/t/b"):
        await write(kept, path, b"x")
    add, remove = kept.tools.overlays.add, kept.tools.overlays.remove
    first = await add(ALICE, kept.id, OverlaySpec("/tmp/t", "/tmp/first"))
    await until(lambda: _copied(kept, first.name))
    (listed,) = (kept.tools.overlays._data / kept.id).iterdir()
    monkeypatch.setattr(overlays, "LISTED_BYTES_MAX", 2 * listed.stat().st_size - 1)
    second = await add(ALICE, kept.id, OverlaySpec("/tmp/t", "/tmp/second"))
    await until(lambda: _copied(kept, second.name, "failed"))
    assert (await kept.tools.overlays.get(ALICE, kept.id, second.name)).state["copy_error"] == overlays.LONG
    assert list((kept.tools.overlays._data / kept.id).iterdir()) == [listed]
    await remove(ALICE, kept.id, second.name)
    assert await kept.house.sandboxes.files.list(ALICE, kept.id, "/tmp/second") == []
    await remove(ALICE, kept.id, first.name)
    third = await add(ALICE, kept.id, OverlaySpec("/tmp/t", "/tmp/third"))
    await until(lambda: _copied(kept, third.name))


async def test_an_overlay_that_is_copied_has_changed_the_workspace(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[str] = []
    mounting = kept.house.sandboxes.copying._access.mounting  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(mounting, "changed", lambda sandbox: changed.append(sandbox.id), raising=False)
    await write(kept, "/tmp/t/a", b"x")
    changed.clear()
    made = await kept.tools.overlays.add(ALICE, kept.id, OverlaySpec("/tmp/t", "/tmp/p"))
    await until(lambda: _copied(kept, made.name))
    await until(lambda: _are(changed, [kept.id]))


async def test_more_overlays_than_a_sandbox_copies_at_once_wait_for_their_turn(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, most, go = 0, 0, asyncio.Event()

    async def copy(*_: Any, **__: Any) -> AsyncIterator[CopyEnd]:
        nonlocal begun, most
        begun += 1
        most = max(most, begun)
        await go.wait()
        begun -= 1
        yield CopyEnd(0, 0)

    monkeypatch.setattr(kept.house.sandboxes.copying, "copy", copy)
    made = [
        await kept.tools.overlays.add(ALICE, kept.id, OverlaySpec("/tmp", f"/copies/{number}"))
        for number in range(overlays.COPIES_MAX + 2)
    ]
    await asyncio.sleep(0.05)
    assert await kept.tools.overlays.status(kept.id, made[-1].name) == "pending"
    go.set()
    for one in made:
        await until(lambda one=one: _copied(kept, one.name))
    assert most == overlays.COPIES_MAX


async def test_overlays_that_cannot_be_are_refused_or_fail(kept: Kept) -> None:
    add = kept.tools.overlays.add
    for bad in (
        OverlaySpec("relative", "x"),
        OverlaySpec("/tmp", "x", strategy="other"),
        OverlaySpec("/etc/hostname", "x"),
        OverlaySpec("/tmp", "x", ("y" * 300,)),
    ):
        with pytest.raises(InvalidInput):
            await add(ALICE, kept.id, bad)
    with pytest.raises(NotFound):
        await add(ALICE, kept.id, OverlaySpec("/none", "x"))
    with pytest.raises(Forbidden):
        await add(READER, kept.id, OverlaySpec("/tmp", "x"))
    made = await add(ALICE, kept.id, OverlaySpec("/tmp", "/tmp/inside"))
    await until(lambda: _copied(kept, made.name, "failed"))
    assert "lies in the source" in (await kept.tools.overlays.get(ALICE, kept.id, made.name)).state["copy_error"]


async def _gone(kept: Kept) -> bool:
    return not await kept.house.records.list_fixtures()


async def _are(found: list[str], wanted: list[str]) -> bool:
    return found == wanted


async def _copied(kept: Kept, name: str, status: str = "complete") -> bool:
    return await kept.tools.overlays.status(kept.id, name) == status


async def _no_previews(kept: Kept) -> bool:
    return not kept.previews.registered
