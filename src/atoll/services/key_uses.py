"""KeyUses: collects the uses of keys and writes them in batches, off every request's path; the keys service owns it."""

from __future__ import annotations

from atoll.records.base import KeyUse, Records
from atoll.services.write_behind import WriteBehind

FLUSH_EVERY_S = 1.0
BATCH_ITEMS = 200  # in one transaction: sandboxes wait behind it


class KeyUses(WriteBehind[KeyUse]):
    """`dropped` were never logged: the queue was full, or the store refused them."""

    def __init__(self, records: Records, items_max: int) -> None:
        super().__init__(
            "key uses",
            records.log_key_use,
            self._drop,
            items_max=items_max,
            batch_items=BATCH_ITEMS,
            every_s=FLUSH_EVERY_S,
        )
        self.dropped = 0

    def _drop(self, count: int) -> None:
        self.dropped += count
