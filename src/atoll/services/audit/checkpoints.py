"""The job that signs the heads of all chains into checkpoints, at intervals and at the server's end; app.py runs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import structlog

from atoll.domain.checkpoint import Checkpoint, next_checkpoint
from atoll.domain.errors import AtollError, Conflict
from atoll.records.base import Records
from atoll.services.audit.anchor import Anchor, read_anchor, write_anchor
from atoll.services.audit.signing import Signer, Signing
from atoll.services.clock import Clock, utc_now
from atoll.telemetry.metrics import Metrics
from atoll.vaults.base import Vault

_log = structlog.get_logger()

CLOSE_S = 5.0


class Checkpoints:
    """`anchor` is the file that remembers the last one. Several servers on one database take turns as it comes."""

    def __init__(
        self,
        records: Records,
        vault: Vault,
        anchor: Path,
        *,
        every_s: float = 60.0,
        metrics: Metrics | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._records = records
        self._signing = Signing(records, vault, clock)
        self._file = anchor
        self._every_s = every_s
        self._metrics = metrics
        self._clock = clock
        self._signer: Signer | None = None
        self._may_anchor = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the key, or make it; sign what happened while no server ran."""
        self._signer = await self._signing.open()
        self._may_anchor = await self._anchor_holds()
        await self.make()
        self._task = asyncio.create_task(self._forever(), name="checkpoints")

    async def close(self) -> None:
        """Sign what is not signed yet; a second call does nothing."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.make()
        except (AtollError, TimeoutError) as error:
            _log.warning("audit.last_checkpoint_failed", error=str(error))

    async def make(self) -> Checkpoint | None:
        """A checkpoint, if any chain grew. None when there is nothing to sign, or another server signs it."""
        assert self._signer is not None, "not started"
        last, heads = await self._records.unsigned_heads()
        if not heads:
            return None
        unsigned = next_checkpoint(last, self._signer.key_id, self._clock(), heads)
        made = replace(unsigned, signature=self._signer.sign(unsigned.hash))
        try:
            await self._records.add_checkpoint(made)
        except Conflict:
            return None
        if self._metrics is not None:
            self._metrics.audit.checkpoint_made()
        if self._may_anchor:
            await asyncio.to_thread(write_anchor, self._file, made)
        return made

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.make()
            except AtollError as error:
                _log.warning("audit.checkpoint_failed", error=error.message)
            except Exception:
                _log.exception("audit.checkpoint_failed")

    async def _anchor_holds(self) -> bool:
        """Whether the remembered checkpoint is still there. Else the file stays as it is: it is the proof."""
        try:
            anchor = await asyncio.to_thread(read_anchor, self._file)
        except ValueError:
            anchor = Anchor(0, b"")
        if anchor is None:
            return True
        found = await self._records.list_checkpoints(anchor.number - 1, 1)
        if found and (found[0].number, found[0].hash) == (anchor.number, anchor.hash):
            return True
        _log.error(
            "audit.anchor_lost",
            number=anchor.number,
            why="the database is another one, or older, than when this server last signed: see `atoll audit verify`",
        )
        return False
