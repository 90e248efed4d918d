"""A17: whatever is done to the events or the checkpoints behind the program's back shows, and what it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from sqlalchemy import Connection, text

from atoll.domain.checkpoint import AuditKey
from atoll.domain.event_chain import HASHED, event_hash
from atoll.testing.memory_vault import MemoryVault
from atoll.testing.records_conformance import T0, event
from tests.services.audit.conftest import Trail

Tamper = Callable[[sqlite3.Connection], object]


async def test_a_trail_that_nobody_touched_is_as_it_was_written(any_trail: Trail) -> None:
    report = await any_trail.verify()
    assert (report.findings, report.notes) == ([], [])
    assert (report.events, report.tenants, report.checkpoints) == (31, 4, 2)  # with the key's own event
    alone = await any_trail.verify("key_1")
    assert (alone.ok, alone.events, alone.tenants) == (True, 10, 1)


async def test_events_after_the_last_checkpoint_are_told(any_trail: Trail) -> None:
    await any_trail.write(2)
    report = await any_trail.verify()
    assert report.ok
    assert report.notes == ["2 events came after the last checkpoint"]


async def test_what_was_written_while_one_looked_is_no_finding(
    any_trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.services.audit.verifying.PAGE", 3)
    before = any_trail.records.read_links

    async def meanwhile(*arguments: object) -> object:
        await any_trail.write(3)
        return await before(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(any_trail.records, "read_links", meanwhile)

    calls = 0

    async def for_a_while(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return await (meanwhile if calls < 10 else before)(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(any_trail.records, "read_links", for_a_while)
    assert (await any_trail.verify()).findings == []


def tampered(trail: Trail, tamper: Tamper | str) -> None:
    with closing(sqlite3.connect(trail.file)) as other, other:
        if isinstance(tamper, str):
            other.executescript(tamper)
        else:
            tamper(other)


CHANGES = [
    *(
        (f"UPDATE events SET {column} = '{value}' WHERE id = 8", "event 3 (id 8.* was changed")
        for column, value in (
            ("at", "2026-03-01 12:00:00.000000"),
            ("at", "never"),
            ("action", "x"),
            ("target", "x"),
            ("actor", "x"),
            ("outcome", "x"),
            ("request_id", "x"),
            ("credential", "x"),
            ("address", "x"),
            ("detail", "{}"),
            ("detail", '{"n": 6,"é":0.5}'),
            ("hash", "x"),
        )
    ),
    # the same moment in another form: it sorts elsewhere
    ("UPDATE events SET at = replace(at, ' ', 'T') WHERE id = 8", "event 3 (id 8.* was changed"),
    ("UPDATE events SET actor = CAST(actor AS BLOB) WHERE id = 8", "event 3 (id 8.* cannot be read"),
    ("UPDATE events SET at = CAST(at AS BLOB) WHERE id = 8", "event 3 (id 8.* was changed"),
    ("UPDATE events SET previous = zeroblob(32) WHERE id = 8", "event 3 .id 8.*replaced or moved"),
    ("UPDATE events SET tenant = 'key_9' WHERE id = 8", "tenant key_.: event 3 is missing"),
    ("DELETE FROM events WHERE id = 8", "tenant key_.: event 3 is missing"),
    ("DELETE FROM events WHERE id BETWEEN 8 AND 14", "event . to . is missing"),
    ("DELETE FROM events WHERE tenant = 'key_1'", "tenant key_1: event 7 is missing"),
    ("DELETE FROM events WHERE tenant = 'key_1'; DELETE FROM event_heads WHERE tenant = 'key_1'", "10 is missing"),
    ("DELETE FROM events", "is missing"),
    ("DELETE FROM events WHERE id = (SELECT max(id) FROM events)", "is missing, which a checkpoint or the head names"),
    # the ids of two events of one tenant, and of two tenants
    ("UPDATE events SET id = 900 WHERE id = 8; UPDATE events SET id = 8 WHERE id = 11; UPDATE events SET id = 11 WHERE "
     "id = 900", "was moved"),
    ("UPDATE events SET id = 900 WHERE id = 8; UPDATE events SET id = 8 WHERE id = 9; UPDATE events SET id = 9 WHERE "
     "id = 900", "was changed"),
    # the numbers of two events
    ("UPDATE events SET seq = 900 WHERE id = 8; UPDATE events SET seq = 3 WHERE id = 11; UPDATE events SET seq = 4 "
     "WHERE id = 8", "replaced or moved"),
    ("UPDATE event_heads SET seq = 5 WHERE tenant = 'key_1'", "its chain ends with event 10, its head is of event 5"),
    ("UPDATE event_heads SET hash = zeroblob(32) WHERE tenant = 'key_1'", "its chain ends with"),
    ("DELETE FROM event_heads WHERE tenant = 'key_1'", "its chain ends with event 10, its head is of event 0"),
    ("INSERT INTO event_heads VALUES ('key_9', 4, zeroblob(32))", "tenant key_9: event 4 is missing"),
    ("INSERT INTO events SELECT 900, at, action, target, tenant, actor, outcome, request_id, detail, credential, "
     "address, 11, hash, hash FROM events WHERE tenant = 'key_1' AND seq = 10", "event 11 .id 900.* was changed"),
    ("DELETE FROM checkpoints WHERE number = 1", "checkpoint 1 is missing"),
    ("DELETE FROM checkpoints WHERE number = 2", "checkpoint 2 is missing, which this server has made"),
    ("DELETE FROM checkpoints; DELETE FROM checkpoint_heads", "checkpoint 2 is missing"),
    ("DELETE FROM checkpoint_heads WHERE checkpoint = 1", "checkpoint 1: was changed"),
    ("UPDATE checkpoint_heads SET hash = zeroblob(32) WHERE seq = 7", "its chain was rebuilt"),
    ("UPDATE checkpoints SET at = '2026-03-01 12:00:00.000000'", "checkpoint 1: was changed"),
    ("UPDATE checkpoints SET signature = zeroblob(64) WHERE number = 2", "its signature is not that of"),
    ("UPDATE checkpoints SET key_id = 'ak_9'", "signed by ak_9"),
    ("DELETE FROM audit_keys", "none of this server's keys"),
    ("UPDATE audit_keys SET public = zeroblob(32)", "has another public half"),
    ("UPDATE audit_keys SET key = zeroblob(60)", "cannot be trusted"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "found"), CHANGES, ids=lambda value: str(value)[:60])
async def test_a17_what_was_changed_removed_moved_or_added_is_found(trail: Trail, tamper: str, found: str) -> None:
    # The primary key's numbers make this one event 3 of its chain.
    tampered(trail, tamper)
    report = await trail.verify()
    assert not report.ok
    import re

    pattern = re.compile(found.replace("(id", r".id"))
    assert any(pattern.search(one) for one in report.findings), report.findings


async def test_a17_a_chain_that_was_rebuilt_with_right_hashes_is_found(trail: Trail) -> None:
    def rebuild(other: sqlite3.Connection) -> None:
        other.row_factory = sqlite3.Row
        previous = bytes(32)
        for row in other.execute("SELECT * FROM events WHERE tenant = 'key_1' ORDER BY seq").fetchall():
            values = dict(row) | {"actor": "nobody", "at": row["at"].replace(" ", "T") + "+00:00"}
            digest = event_hash(previous, [values[name] for name in HASHED])
            change = "UPDATE events SET actor = 'nobody', previous = ?, hash = ? WHERE id = ?"
            other.execute(change, (previous, digest, row["id"]))
            previous = digest
        other.execute("UPDATE event_heads SET hash = ? WHERE tenant = 'key_1'", (previous,))

    tampered(trail, rebuild)
    report = await trail.verify()
    assert len(report.findings) == 2
    assert all("its chain was rebuilt" in one for one in report.findings)


async def test_a17_a_key_that_somebody_put_there_does_not_make_its_checkpoints_true(trail: Trail) -> None:
    theirs = MemoryVault()
    await theirs.start()
    tampered(trail, "DELETE FROM audit_keys; DELETE FROM checkpoints; DELETE FROM checkpoint_heads")
    forger = Trail(trail.records, theirs, trail.anchor.with_name("theirs.json"), trail.url)
    await forger.checkpoint()
    await forger.write(1)
    await forger.checkpoint()
    assert (await forger.verify()).ok
    report = await trail.verify()
    assert [one for one in report.findings if "cannot be trusted" in one]
    assert [one for one in report.findings if "none of this server's keys" in one]
    assert [one for one in report.findings if "is not the one that this server has made" in one]


async def test_an_anchor_that_is_lost_or_spoilt_is_told(trail: Trail) -> None:
    trail.anchor.write_text("nothing")
    assert "audit.json in the data folder cannot be read" in (await trail.verify()).findings[0]
    await trail.write(1)
    await trail.checkpoint()
    assert trail.anchor.read_text() == "nothing", "the proof was written over"
    trail.anchor.unlink()
    report = await trail.verify()
    assert report.ok
    assert "no server of this data folder" in report.notes[0]


async def test_an_older_database_is_found_and_stays_found(trail: Trail) -> None:
    old = trail.file.read_bytes()
    del old  # the newest checkpoint goes with what it signs, as in an older copy
    tampered(
        trail,
        "DELETE FROM checkpoint_heads WHERE checkpoint = 2; DELETE FROM checkpoints WHERE number = 2;"
        "DELETE FROM events WHERE id > 21; UPDATE event_heads SET"
        " seq = (SELECT max(seq) FROM events WHERE events.tenant = event_heads.tenant),"
        " hash = (SELECT hash FROM events WHERE events.tenant = event_heads.tenant ORDER BY seq DESC LIMIT 1)",
    )
    assert [one for one in (await trail.verify()).findings if "checkpoint 2 is missing" in one]
    await trail.write(3)
    await trail.checkpoint()
    await trail.checkpoint()
    assert [one for one in (await trail.verify()).findings if "is not the one that this server has made" in one]


async def test_findings_are_bounded_and_counted(trail: Trail) -> None:
    await trail.write(200, tenants=1)
    tampered(trail, "UPDATE events SET actor = 'x'")
    report = await trail.verify()
    assert (len(report.findings), report.wrong) == (100, 231)


async def test_keys_are_rotated_and_old_checkpoints_stay_true(any_trail: Trail) -> None:
    from atoll.services.audit.signing import Signing

    await Signing(any_trail.records, any_trail.vault).rotate("cli")
    await any_trail.write(1)
    await any_trail.checkpoint()
    report = await any_trail.verify()
    assert (report.findings, report.checkpoints) == ([], 3)
    keys = {one.key_id for one in await any_trail.records.list_checkpoints()}
    assert len(keys) == 2


async def test_a_key_of_another_vault_is_no_key(trail: Trail) -> None:
    await trail.records.add_audit_key(AuditKey("ak_x", b"p", "other", b"w", T0), first=False, event=event())
    assert "wrapped by the vault 'other'" in (await trail.verify()).findings[0]


@pytest.mark.postgres
async def test_a17_on_postgres_a_change_that_goes_round_the_triggers_is_found(
    postgres_url: str, any_trail: Trail
) -> None:
    if not any_trail.url.startswith("postgresql"):
        return

    def tamper(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE events DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE events SET actor = 'x' WHERE seq = 4 AND tenant = 'key_1'"))
        connection.execute(text("ALTER TABLE events ENABLE TRIGGER USER"))

    await any_trail.records._database.write(tamper)
    (finding,) = (await any_trail.verify()).findings
    assert "tenant key_1: event 4" in finding
    assert "was changed" in finding
