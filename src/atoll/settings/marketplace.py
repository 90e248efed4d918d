"""How many workers may be published, and how long a run of one may take."""

from __future__ import annotations

from pydantic import Field

from atoll.settings.section import Section


class MarketplaceSettings(Section):
    workers_per_author: int = Field(default=100, ge=0, le=100_000)
    """Workers that one author may publish; 0: nobody may."""
    versions_per_worker: int = Field(default=100, ge=1, le=10_000)
    """Versions that one worker may have."""
    run_s: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds that a run may take when its caller asks for no other timeout."""
    run_s_max: float = Field(default=900.0, gt=0, le=86_400)
    """Seconds that a caller may ask for."""
