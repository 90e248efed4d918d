"""Chains and checkpoints as JSON lines, which can be verified without the database; docs/audit.md describes them.

`atoll audit export` writes them, `atoll audit verify --file` reads them back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from atoll.domain.checkpoint import Checkpoint, Head
from atoll.domain.event_chain import Link, moment_text
from atoll.records.base import Records
from atoll.services.audit.chain_check import ChainCheck, CheckpointCheck, Report, missing
from atoll.services.audit.verifying import CHECKPOINTS_PAGE, PAGE

FORM = 1
LINE_CHARS_MAX = 64 * 2**20  # a checkpoint names every tenant that did something
_encode = json.JSONEncoder(separators=(",", ":")).encode
_COLUMNS = (
    "tenant", "seq", "id", "at", "action", "target", "actor", "credential", "outcome", "request_id", "address"
)  # fmt: skip


async def export(records: Records, tenant: str | None = None) -> AsyncIterator[str]:
    """The lines: what it is, keys, checkpoints, events tenant by tenant, the end. A page at a time is in memory."""
    yield _encode({"kind": "export", "form": FORM, "tenant": tenant})
    for key in await records.list_audit_keys():
        yield _encode({"kind": "key", "id": key.id, "public": key.public.hex()})
    number = 0
    while some := await records.list_checkpoints(number, CHECKPOINTS_PAGE):
        for one in some:
            yield _encode(_checkpoint_line(one))
        number = some[-1].number
    after: tuple[str, int] | None = None
    events = 0
    while links := await records.read_links(after, PAGE, tenant):
        for link in links:
            yield _encode(_event_line(link))
        events += len(links)
        after = links[-1].tenant, links[-1].seq
        await asyncio.sleep(0)
    yield _encode({"kind": "end", "events": events})


def verify_lines(lines: Iterable[str], keys: dict[str, Ed25519PublicKey] | None = None) -> Report:
    """Verify an export. `keys`: who may have signed; None: whom the export itself names, which a note says."""
    check = _FileCheck(keys)
    for number, line in enumerate(lines, 1):
        try:
            check.take(line)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            check.report.found(f"line {number}: is none of an export: {type(error).__name__}: {error}")
    return check.end()


class _FileCheck:
    def __init__(self, keys: dict[str, Ed25519PublicKey] | None) -> None:
        self.report = Report()
        self._trusted = keys
        self._named: dict[str, Ed25519PublicKey] = {}
        self._checkpoints = CheckpointCheck(self.report, self._named if keys is None else keys)
        self._chains = ChainCheck(self.report)
        self._signed: dict[tuple[str, int], bytes] = {}
        self._tenant: str | None = None
        self._begun = self._ended = False

    def take(self, line: str) -> None:
        if self._ended or len(line) > LINE_CHARS_MAX:
            raise ValueError("it is too long, or comes after the end")
        value: dict[str, Any] = json.loads(line)
        kind = value["kind"]
        if not self._begun and (kind != "export" or value["form"] != FORM):
            raise ValueError(f"an export of form {FORM} begins otherwise")
        match kind:
            case "export":
                self._begun, self._tenant = True, value["tenant"]
            case "key":
                self._named[value["id"]] = Ed25519PublicKey.from_public_bytes(bytes.fromhex(value["public"]))
            case "checkpoint":
                one = _checkpoint_of(value)
                self._checkpoints.add(one)
                self._signed |= {(head.tenant, head.seq): head.hash for head in one.heads}
            case "event":
                self._chains.add(_link_of(value, self._signed.pop((value["tenant"], value["seq"]), None)))
            case "end":
                self._ended = True
                if value["events"] != self.report.events:
                    self.report.found(f"the export had {value['events']} events and has {self.report.events}")
            case _:
                raise ValueError(f"unknown kind {kind!r}")

    def end(self) -> Report:
        self._chains.end()
        left = [
            Head(tenant, seq, digest)
            for (tenant, seq), digest in self._signed.items()
            if self._tenant in (None, tenant)
        ]
        missing(self.report, sorted(left, key=lambda head: (head.tenant, head.seq)))
        if not self._ended:
            self.report.found("the export is cut off: its last line is missing")
        if self._trusted is None and self._named:
            names = ", ".join(f"{name} {key.public_bytes_raw().hex()}" for name, key in self._named.items())
            self.report.notes.append(
                f"signed by keys that the file itself names, compare with `atoll audit key`: {names}"
            )
        if self.report.events > self.report.signed:
            late = self.report.events - self.report.signed
            self.report.notes.append(f"{late} events came after the last checkpoint")
        return self.report


def lines_of(text: Iterator[str]) -> Iterator[str]:
    """Lines without their ends, and without empty ones."""
    return (line for raw in text if (line := raw.strip()))


def _event_line(link: Link) -> dict[str, Any]:
    line: dict[str, Any] = {"kind": "event", **{name: getattr(link, name) for name in _COLUMNS}}
    try:
        detail = json.loads(link.detail)
    except (TypeError, ValueError):
        detail = None
    # The hash is over the text: an object is written only where it gives that text again.
    same = detail is not None and _encode(detail) == link.detail
    line |= {"detail": detail} if same else {"detail_text": link.detail}
    return line | {"previous": link.previous.hex(), "hash": link.hash.hex()}


def _link_of(value: dict[str, Any], signed: bytes | None) -> Link:
    detail = value["detail_text"] if "detail_text" in value else _encode(value["detail"])
    digest = bytes.fromhex(value["hash"])
    columns = [value[name] for name in _COLUMNS]
    # Without the head's record: the last event is one.
    return Link._make([*columns, detail, bytes.fromhex(value["previous"]), digest, signed, value["seq"], digest])


def _checkpoint_line(one: Checkpoint) -> dict[str, Any]:
    return {
        "kind": "checkpoint",
        "number": one.number,
        "at": moment_text(one.at),
        "key_id": one.key_id,
        "heads": [[head.tenant, head.seq, head.hash.hex()] for head in one.heads],
        "previous": one.previous.hex(),
        "hash": one.hash.hex(),
        "signature": one.signature.hex(),
    }


def _checkpoint_of(value: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        value["number"],
        datetime.fromisoformat(value["at"]),
        value["key_id"],
        bytes.fromhex(value["previous"]),
        tuple(Head(tenant, seq, bytes.fromhex(digest)) for tenant, seq, digest in value["heads"]),
        bytes.fromhex(value["hash"]),
        bytes.fromhex(value["signature"]),
    )
