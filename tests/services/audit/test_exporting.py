"""An export proves itself without the database, and shows whatever was done to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from atoll.services.audit.exporting import export, verify_lines
from tests.services.audit.conftest import Trail

Lines = list[dict[str, Any]]


async def exported(trail: Trail, tenant: str | None = None) -> Lines:
    return [json.loads(line) async for line in export(trail.records, tenant)]


def verified(lines: Lines, keys: dict[str, Ed25519PublicKey] | None = None) -> Any:
    return verify_lines([json.dumps(line) for line in lines], keys)


async def test_an_export_proves_itself(any_trail: Trail) -> None:
    lines = await exported(any_trail)
    report = verified(lines)
    assert (report.findings, report.events, report.tenants, report.checkpoints) == ([], 31, 4, 2)
    assert "compare with `atoll audit key`" in report.notes[0]
    (key,) = await any_trail.records.list_audit_keys()
    trusted = {key.id: Ed25519PublicKey.from_public_bytes(key.public)}
    assert (verified(lines, trusted).findings, verified(lines, trusted).notes) == ([], [])


async def test_an_export_of_one_tenant_proves_itself(any_trail: Trail) -> None:
    await any_trail.write(3)
    report = verified(await exported(any_trail, "key_2"))
    assert (report.findings, report.events, report.tenants) == ([], 10, 1)
    assert report.notes[-1] == "1 events came after the last checkpoint"


def _drop(kind: str, at: int) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        lines.remove([line for line in lines if line["kind"] == kind][at])

    return change


def _set(kind: str, at: int, /, **changed: Any) -> Callable[[Lines], None]:
    return lambda lines: [line for line in lines if line["kind"] == kind][at].update(changed)


CHANGES = {
    "an event is gone": (_drop("event", 4), "event 5 is missing"),
    "an event was changed": (_set("event", 4, detail={"n": 7}), "was changed"),
    "a detail has other words": (_set("event", 4, detail_text="{}"), "was changed"),
    "a checkpoint is gone": (_drop("checkpoint", 0), "checkpoint 1 is missing"),
    "a head was changed": (_set("checkpoint", 1, heads=[]), "checkpoint 2: was changed"),
    "no key is named": (_drop("key", 0), "none of this server's keys"),
    "the end is gone": (_drop("end", 0), "the export is cut off"),
    "the last event is gone": (_drop("event", -1), "missing, which a checkpoint"),
    "the beginning is gone": (_drop("export", 0), "begins otherwise"),
    "a line of another kind": (_set("event", 4, kind="other"), "unknown kind"),
    "a line without its hash": (_set("event", 4, hash=None), "is none of an export"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a17_what_was_done_to_an_export_is_found(trail: Trail, name: str) -> None:
    change, found = CHANGES[name]
    lines = await exported(trail)
    change(lines)
    assert any(found in one for one in verified(lines).findings), verified(lines).findings


async def test_a17_lines_in_another_order_are_found(trail: Trail) -> None:
    lines = await exported(trail)
    first = next(at for at, line in enumerate(lines) if line["kind"] == "event")
    lines[first + 2], lines[first + 3] = lines[first + 3], lines[first + 2]
    assert not verified(lines).ok


def test_what_is_no_export_is_no_export() -> None:
    for lines in (["nothing"], ["{}"], ['{"kind":"export","form":2}'], [], ["[]"], ['{"kind":"event"}']):
        assert not verify_lines(lines).ok, lines
