"""The records contract's part on previews: registered ports of sandboxes, at most one for each port."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from atoll.domain.event import Event
from atoll.domain.preview import Preview


class PreviewRecords(ABC):
    """A part of `Records`; what holds for all of its methods stands there."""

    @abstractmethod
    async def add_preview(self, preview: Preview, event: Event, *, quota: int) -> None:
        """Insert. Conflict when the port of the sandbox has one; QuotaExceeded when the owner has `quota` already: N+k
        concurrent calls at quota N insert exactly N."""

    @abstractmethod
    async def swap_preview(self, preview: Preview, event: Event) -> Preview:
        """As `swap_sandbox`, for a preview."""

    @abstractmethod
    async def get_preview(self, preview_id: str) -> Preview | None: ...

    @abstractmethod
    async def list_previews(
        self, owners: Collection[str], *, within: Collection[str] | None = None, after: str = "", limit: int = 1000
    ) -> list[Preview]:
        """Those of these owners, by id, behind the id `after`; `within`: of these sandboxes or owners alone."""

    @abstractmethod
    async def delete_preview(self, preview_id: str, event: Event) -> None:
        """Forget it. NotFound, and no event, when it is gone already."""

    @abstractmethod
    async def prune_previews(self) -> int:
        """Delete those whose sandbox has no record any more, or is out of every list; how many there were."""
