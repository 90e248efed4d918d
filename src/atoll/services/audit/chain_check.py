"""Checks chains of events and the checkpoints over them, one by one; `verifying.py` and `exporting.py` feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from atoll.domain.checkpoint import Checkpoint, Head, checkpoint_hash
from atoll.domain.event_chain import GENESIS, HASHED, Link, event_hash, moment_text
from atoll.services.audit.signing import is_signed

FINDINGS_MAX = 100


@dataclass(slots=True)
class Report:
    """What was looked at, and each thing that is not as it was written: at most FINDINGS_MAX, `wrong` counts all."""

    events: int = 0
    tenants: int = 0
    checkpoints: int = 0
    signed: int = 0  # events up to the last signed head of their tenant
    findings: list[str] = field(default_factory=list[str])
    wrong: int = 0
    notes: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        return not self.wrong

    def found(self, what: str) -> None:
        self.wrong += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(what)


class ChainCheck:
    """Takes links tenant by tenant, in the order of their numbers; `end` after the last."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._tenant: str | None = None
        self._begin()

    def _begin(self) -> None:
        self._seq, self._id, self._hash = 0, 0, GENESIS
        self._signed_seq = 0
        self._head: tuple[int, bytes] | None = None

    def add(self, link: Link) -> None:
        """The next event."""
        if link.tenant != self._tenant:
            self.end()
            self._tenant = link.tenant
            self._report.tenants += 1
        self._report.events += 1
        try:
            self._check(link)
        except (TypeError, ValueError) as error:  # somebody put in what is no number or no text
            self._report.found(f"{_name(link)}: cannot be read: {error}")

    def end(self) -> None:
        """The last event of this tenant's has been seen."""
        if self._tenant is not None and self._head is not None and self._head != (self._seq, self._hash):
            self._report.found(
                f"tenant {self._tenant}: its chain ends with event {self._seq}, its head is of event {self._head[0]}"
            )
        self._report.signed += self._signed_seq
        self._tenant = None
        self._begin()

    def _check(self, link: Link) -> None:
        found = self._report.found
        if link.seq != self._seq + 1:
            gap = f"{self._seq + 1}" if link.seq == self._seq + 2 else f"{self._seq + 1} to {link.seq - 1}"
            found(f"tenant {link.tenant}: event {gap} is missing")
        elif link.previous != self._hash:
            found(f"{_name(link)}: does not follow from the event before it: one of them was replaced or moved")
        if link.id <= self._id:
            found(f"{_name(link)}: was moved: its id is not above that of the event before it")
        digest = event_hash(link.previous, link[: len(HASHED)])  # a link begins with them
        if digest != link.hash:
            found(f"{_name(link)}: was changed: it does not have its hash")
        if link.signed is not None:
            self._signed_seq = link.seq
            if link.signed != link.hash:
                found(f"{_name(link)}: its chain was rebuilt: a checkpoint signed another event {link.seq}")
        if link.head_seq is not None and link.head_hash is not None:
            self._head = link.head_seq, link.head_hash
        else:
            self._head = 0, b""
        self._seq, self._id, self._hash = link.seq, link.id, link.hash


class CheckpointCheck:
    """Takes checkpoints in the order of their numbers."""

    def __init__(self, report: Report, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._report = report
        self._keys = keys
        self._number = 0
        self._hash = GENESIS

    def add(self, one: Checkpoint) -> None:
        found = self._report.found
        self._report.checkpoints += 1
        if one.number != self._number + 1:
            found(f"checkpoint {self._number + 1} is missing")
        elif one.previous != self._hash:
            found(f"checkpoint {one.number}: does not follow from the one before it")
        if checkpoint_hash(one.previous, one.number, moment_text(one.at), one.key_id, one.heads) != one.hash:
            found(f"checkpoint {one.number}: was changed, or heads that it signs were: it does not have its hash")
        key = self._keys.get(one.key_id)
        if key is None:
            found(f"checkpoint {one.number}: signed by {one.key_id}, which is none of this server's keys")
        elif not is_signed(key, one.signature, one.hash):
            found(f"checkpoint {one.number}: its signature is not that of {one.key_id}")
        self._number, self._hash = one.number, one.hash


def missing(report: Report, heads: list[Head]) -> None:
    """Events that are said to be there and are not."""
    for head in heads:
        report.found(f"tenant {head.tenant}: event {head.seq} is missing, which a checkpoint or the head names")


def _name(link: Link) -> str:
    return f"tenant {link.tenant}: event {link.seq} (id {link.id}, {link.action} {link.target})"
