"""Verifies all chains and checkpoints of a store; `atoll audit verify` calls it, beside a running server or without."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atoll.domain.checkpoint import Checkpoint
from atoll.records.base import Records
from atoll.services.audit.anchor import Anchor, read_anchor
from atoll.services.audit.chain_check import ChainCheck, CheckpointCheck, Report, missing
from atoll.services.audit.signing import Signing
from atoll.vaults.base import Vault

PAGE = 5_000
CHECKPOINTS_PAGE = 500


async def verify(records: Records, vault: Vault, anchor: Path | None, tenant: str | None = None) -> Report:
    """Everything, or one tenant's chain with all checkpoints. Both parts are started. Pages: memory stays bounded."""
    report = Report()
    keys, wrong = await Signing(records, vault).proved()
    for why in wrong:
        report.found(why)
    await _checkpoints(records, CheckpointCheck(report, keys), report, anchor)
    chains = ChainCheck(report)
    links = await records.read_links(None, PAGE, tenant)
    while links:
        last = links[-1].tenant, links[-1].seq
        # the next page is read meanwhile, on another core
        reading = asyncio.create_task(records.read_links(last, PAGE, tenant))
        await asyncio.sleep(0)
        for link in links:
            chains.add(link)
        links = await reading
    chains.end()
    missing(report, await records.missing_events(tenant))
    if report.events > report.signed:
        report.notes.append(f"{report.events - report.signed} events came after the last checkpoint")
    return report


async def _checkpoints(records: Records, check: CheckpointCheck, report: Report, anchor: Path | None) -> None:
    wanted = await _anchor(report, anchor)
    number = 0
    while some := await records.list_checkpoints(number, CHECKPOINTS_PAGE):
        for one in some:
            check.add(one)
            if wanted is not None and one.number == wanted.number:
                _compare(report, one, wanted)
        number = some[-1].number
    if wanted is not None and wanted.number > number:
        report.found(
            f"checkpoint {wanted.number} is missing, which this server has made: the newest checkpoints were taken "
            "away, or the database is an older one"
        )


def _compare(report: Report, one: Checkpoint, wanted: Anchor) -> None:
    if one.hash != wanted.hash:
        report.found(f"checkpoint {one.number}: is not the one that this server has made")


async def _anchor(report: Report, file: Path | None) -> Anchor | None:
    if file is None:
        return None
    try:
        anchor = await asyncio.to_thread(read_anchor, file)
    except ValueError as error:
        report.found(f"{file.name} in the data folder cannot be read: {error}")
        return None
    if anchor is None:
        report.notes.append("no server of this data folder has signed a checkpoint: their newest may be missing unseen")
    return anchor
