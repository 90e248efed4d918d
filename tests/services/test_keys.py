"""The keys service: what is kept of a key, who is recognised, and how fast a dead key is refused (A07, A12, A13)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from atoll.domain import crash
from atoll.domain.errors import (
    AtollError,
    Conflict,
    Forbidden,
    Internal,
    InvalidInput,
    NotFound,
    StaleVersion,
    Unauthenticated,
    Unavailable,
)
from atoll.domain.event import Event
from atoll.domain.key import ApiKey, KeyKind, Scope
from atoll.records.base import KeyUse
from atoll.services import key_uses, owner_key, remembered, write_behind
from atoll.services.keys import Keys
from atoll.testing.memory_records import MemoryRecords


class CountingRecords(MemoryRecords):
    """Counts look-ups, keeps the use log, and fails as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lookups = 0
        self.logged: list[KeyUse] = []
        self.wrote = asyncio.Event()
        self.log_errors: list[Exception] = []
        self.stale_swaps = 0

    async def find_key(self, key_hash: str) -> ApiKey | None:
        self.lookups += 1
        return await super().find_key(key_hash)

    async def log_key_use(self, uses: Sequence[KeyUse]) -> None:
        if self.log_errors:
            raise self.log_errors.pop(0)
        await super().log_key_use(uses)
        self.logged += uses
        self.wrote.set()

    async def swap_key(self, key: ApiKey, event: Event | None, **more: Any) -> ApiKey:
        if self.stale_swaps:
            self.stale_swaps -= 1
            raise StaleVersion
        return await super().swap_key(key, event, **more)


class Time:
    """Both clocks of the service, moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.s = 1000.0

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.s += seconds


@pytest.fixture
def records() -> CountingRecords:
    return CountingRecords()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.mark.parametrize("end", ["revoke", "delete"])
async def test_a_key_is_shown_as_ended_with_the_one_that_made_it_and_gets_no_other_text(keys: Keys, end: str) -> None:
    first = (await keys.create("first")).key
    middle = (await keys.create("middle", parent=first.id, owner=first.owner)).key
    last = (await keys.create("last", parent=middle.id, owner=first.owner)).key
    assert [await keys.as_it_stands(one) for one in (first, middle, last)] == [first, middle, last]
    await keys.rotate(last.id)
    await (keys.revoke(first.id) if end == "revoke" else keys.delete(first.id))
    for one in (middle, last):
        assert not (await keys.as_it_stands(one)).usable(one.created_at)
        with pytest.raises(Conflict, match="ended with the one that made it"):
            await keys.rotate(one.id)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for before `keys`: uses are written at once, two at a time."""
    monkeypatch.setattr(key_uses, "FLUSH_EVERY_S", 0.01)
    monkeypatch.setattr(key_uses, "BATCH_ITEMS", 2)


@pytest.fixture
async def keys(records: CountingRecords, time: Time) -> AsyncIterator[Keys]:
    keys = Keys(records, cache_s=2, use_queue_items=5, clock=lambda: time.now, monotonic=lambda: time.s)
    yield keys
    await keys.close()


def note(keys: Keys, key_id: str, agent: str = "curl") -> None:
    keys.log_use(key_id, endpoint="/v1", method="GET", status_code=200, ip_address=None, user_agent=agent)


async def test_a13_only_the_digest_and_a_prefix_of_a_key_are_kept(keys: Keys, records: CountingRecords) -> None:
    made = await keys.create("ci", prefix="tb_")
    assert made.text.startswith("tb_")
    assert len(made.text) == 3 + 64
    (stored,) = await keys.list()
    assert stored == made.key
    assert stored.hash == hashlib.sha256(made.text.encode()).hexdigest()
    assert made.text.startswith(stored.prefix)
    assert len(stored.prefix) == 12
    everything = repr((await records.list_keys(include_revoked=True), await records.list_events()))
    assert made.text[20:] not in everything


async def test_a_key_s_text_gives_its_principal(keys: Keys) -> None:
    made = await keys.create("ci", kind=KeyKind.INTERNAL, scopes=frozenset({Scope.READ}))
    principal = await keys.authenticate(made.text)
    assert (principal.id, principal.kind, principal.name) == (made.key.id, KeyKind.INTERNAL, "ci")
    principal.require(Scope.READ)
    with pytest.raises(Forbidden, match="may not write"):
        principal.require(Scope.WRITE)


@pytest.mark.parametrize("text", ["", "sk_" + "0" * 64, "x" * 100_000, "sk_é", "\0", "\ud800"])
async def test_any_other_text_is_refused(keys: Keys, text: str) -> None:
    await keys.create("ci")
    with pytest.raises(Unauthenticated):
        await keys.authenticate(text)


async def test_a_key_is_not_its_digest(keys: Keys) -> None:
    made = await keys.create("ci")
    with pytest.raises(Unauthenticated):
        await keys.authenticate(made.key.hash)


async def test_a07_a_revoked_key_is_refused_on_the_next_request(keys: Keys, records: CountingRecords) -> None:
    made = await keys.create("ci")
    await keys.authenticate(made.text)
    revoked = await keys.revoke(made.key.id, actor="key_admin")
    assert revoked.revoked_at is not None
    with pytest.raises(Unauthenticated):
        await keys.authenticate(made.text)
    assert await keys.revoke(made.key.id) == revoked
    events = [(event.action, event.target, event.tenant, event.actor) for event in await records.list_events()]
    assert events == [
        ("key.created", made.key.id, made.key.id, "system"),
        ("key.revoked", made.key.id, made.key.id, "key_admin"),
    ]
    assert await keys.list() == []
    assert await keys.list(include_revoked=True) == [revoked]


async def test_a07_a_look_up_that_a_revocation_overtook_is_not_remembered(
    keys: Keys, records: CountingRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await keys.create("ci")
    read, go_on = asyncio.Event(), asyncio.Event()

    async def slow(key_hash: str) -> ApiKey | None:
        found = await MemoryRecords.find_key(records, key_hash)
        read.set()
        await go_on.wait()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(records, "find_key", slow)
        early = asyncio.create_task(keys.authenticate(made.text))
        await read.wait()
        await keys.revoke(made.key.id)
        go_on.set()
        await early  # it began before the revocation
    with pytest.raises(Unauthenticated):
        await keys.authenticate(made.text)


async def test_a07_another_server_refuses_a_revoked_key_within_the_cache_s_seconds(
    keys: Keys, records: CountingRecords, time: Time
) -> None:
    other = Keys(records, cache_s=2, clock=lambda: time.now, monotonic=lambda: time.s)
    made = await keys.create("ci")
    await other.authenticate(made.text)
    await keys.revoke(made.key.id)
    time.pass_s(2.01)
    with pytest.raises(Unauthenticated):
        await other.authenticate(made.text)


async def test_a_key_expires_to_the_second_whatever_the_cache_says(keys: Keys, time: Time) -> None:
    made = await keys.create("ci", expires_in_days=1 / 86_400)
    assert made.key.expires_at == time.now + timedelta(seconds=1)
    await keys.authenticate(made.text)
    time.pass_s(0.9)
    await keys.authenticate(made.text)
    time.pass_s(0.1)
    with pytest.raises(Unauthenticated):
        await keys.authenticate(made.text)


async def test_known_and_unknown_keys_are_looked_up_once_in_a_while(
    keys: Keys, records: CountingRecords, time: Time
) -> None:
    made = await keys.create("ci")
    for _ in range(50):
        await keys.authenticate(made.text)
        with pytest.raises(Unauthenticated):
            await keys.authenticate("sk_wrong")
    assert records.lookups == 2
    time.pass_s(2.5)
    await keys.authenticate(made.text)
    assert records.lookups == 3


async def test_a_flood_of_wrong_keys_neither_grows_nor_evicts(
    keys: Keys, records: CountingRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "MISSING_MAX", 10)
    monkeypatch.setattr(remembered, "FOUND_MAX", 3)
    made = await keys.create("ci")
    await keys.authenticate(made.text)
    for n in range(100):
        with pytest.raises(Unauthenticated):
            await keys.authenticate(f"sk_{n}")
    lookups = records.lookups
    await keys.authenticate(made.text)
    assert records.lookups == lookups
    for n in range(5):
        await keys.authenticate((await keys.create(str(n))).text)
    cache = keys._by_hash  # pyright: ignore[reportPrivateUsage]
    assert (len(cache._found), len(cache._missing)) == (3, 10)  # pyright: ignore[reportPrivateUsage]


async def test_a_key_that_was_refused_before_it_was_made_opens_at_once(keys: Keys) -> None:
    text = "sk_" + "ab" * 32
    with pytest.raises(Unauthenticated):
        await keys.authenticate(text)
    await keys.create("owner", text=text)
    await keys.authenticate(text)


async def test_a_store_that_is_down_is_not_a_wrong_key(keys: Keys, records: CountingRecords) -> None:
    made = await keys.create("ci")
    records.down = True
    with pytest.raises(Unavailable):
        await keys.authenticate(made.text)
    records.down = False
    await keys.authenticate(made.text)


async def test_revoking_what_does_not_exist_is_not_found(keys: Keys) -> None:
    for unknown in ("key_000000000000", "", "nonsense"):
        with pytest.raises(NotFound):
            await keys.revoke(unknown)


async def test_revoking_wins_over_concurrent_changes(keys: Keys, records: CountingRecords) -> None:
    made = await keys.create("ci")
    records.stale_swaps = 3
    assert (await keys.revoke(made.key.id)).revoked_at is not None
    other = await keys.create("ci")
    records.stale_swaps = 99
    with pytest.raises(Conflict):
        await keys.revoke(other.key.id)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "n" * 256}),
        ("name", {"name": "a\nb"}),
        ("scopes", {"name": "n", "scopes": frozenset()}),
        ("expires_in_days", {"name": "n", "expires_in_days": 0}),
        ("expires_in_days", {"name": "n", "expires_in_days": float("nan")}),
        ("expires_in_days", {"name": "n", "expires_in_days": 1e300}),
        ("prefix", {"name": "n", "prefix": "SK"}),
        ("prefix", {"name": "n", "prefix": "sk_\n"}),
    ],
)
async def test_a_wrong_field_is_named(keys: Keys, field: str, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as raised:
        await keys.create(**arguments)  # type: ignore[arg-type]
    assert raised.value.field == field
    assert await keys.list() == []


# the use log


async def test_uses_are_written_in_the_background_and_at_the_close(
    hasty: None, keys: Keys, records: CountingRecords
) -> None:
    await keys.start()
    note(keys, "key_1", "first")
    async with asyncio.timeout(5):
        await records.wrote.wait()
    note(keys, "key_1", "second")
    await keys.close()
    await keys.close()
    assert [use.user_agent for use in records.logged] == ["first", "second"]


async def test_uses_beyond_the_queue_are_dropped_and_counted(keys: Keys, records: CountingRecords) -> None:
    await keys.start()
    for n in range(8):
        note(keys, "key_1", str(n))
    assert keys.dropped_uses == 3
    await keys.close()
    assert [use.user_agent for use in records.logged] == ["0", "1", "2", "3", "4"]


async def test_uses_wait_while_the_store_is_down_and_a_refused_batch_does_not_stop_the_next(
    hasty: None, keys: Keys, records: CountingRecords
) -> None:
    records.log_errors = [Unavailable(), Unavailable(), Internal(), RuntimeError("a bug")]
    for n in range(5):
        note(keys, "key_1", str(n))
    await keys.start()
    async with asyncio.timeout(5):
        await records.wrote.wait()
    assert [use.user_agent for use in records.logged] == ["4"]
    assert keys.dropped_uses == 4


async def test_a_store_that_hangs_does_not_hold_up_the_close(
    keys: Keys, records: CountingRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(uses: Sequence[KeyUse]) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(write_behind, "CLOSE_S", 0.05)
    monkeypatch.setattr(records, "log_key_use", hang)
    await keys.start()
    note(keys, "key_1")
    async with asyncio.timeout(5):
        await keys.close()


# the owner key


async def test_the_owner_key_is_made_once_and_found_again(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    made = await owner_key.prepare(keys, path, may_mint=True)
    assert made is not None
    assert made.minted
    assert path.read_text() == made.text, "the file holds the key alone"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (await keys.authenticate(made.text)).kind is KeyKind.OWNER
    again = await owner_key.prepare(keys, path, may_mint=True)
    assert again == owner_key.OwnerKey(made.text, minted=False)
    assert len(await keys.list()) == 1
    assert os.listdir(tmp_path) == ["owner.key"]


async def test_a_key_file_that_opens_nothing_is_replaced(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    standard = await keys.create("not the owner's")
    for useless in ("", "nonsense", "\udcff", standard.text):
        path.write_text(useless, errors="surrogateescape")
        made = await owner_key.prepare(keys, path, may_mint=True)
        assert made is not None
        assert made.minted
        assert path.read_text() == made.text
    (revoked,) = [key for key in await keys.list() if key.kind is KeyKind.OWNER][-1:]
    await keys.revoke(revoked.id)
    assert (await owner_key.prepare(keys, path, may_mint=True)) != made


async def test_a_start_killed_between_file_and_record_leaves_a_text_that_opens_nothing(
    keys: Keys, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(_: str) -> None:
        raise Killed

    path = tmp_path / "owner.key"
    with crash.armed("keys.mint.written", kill), pytest.raises(Killed):
        await owner_key.prepare(keys, path, may_mint=True)
    left = path.read_text()
    with pytest.raises(Unauthenticated):
        await keys.authenticate(left)
    made = await owner_key.prepare(keys, path, may_mint=True)
    assert made is not None
    assert made.minted
    assert made.text != left
    assert len(await keys.list()) == 1


async def test_a12_where_others_can_reach_it_nothing_is_minted_and_a_key_must_exist(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    with pytest.raises(Conflict, match="no API key exists"):
        await owner_key.prepare(keys, path, may_mint=False)
    gone = await keys.create("gone")
    await keys.revoke(gone.key.id)
    with pytest.raises(Conflict, match="no API key exists"):
        await owner_key.prepare(keys, path, may_mint=False)
    await keys.create("ci")
    assert await owner_key.prepare(keys, path, may_mint=False) is None
    assert not path.exists()


async def test_a_key_file_that_others_can_read_is_closed_to_them(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    await owner_key.prepare(keys, path, may_mint=True)
    path.chmod(0o644)
    await owner_key.prepare(keys, path, may_mint=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_link_in_the_place_of_the_key_file_is_refused(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    (tmp_path / "owner.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AtollError, match="owner key"):
        await owner_key.prepare(keys, tmp_path / "owner.key", may_mint=True)
    assert (tmp_path / "elsewhere").read_text() == "x"
