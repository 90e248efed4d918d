"""What the metrics tell of an application as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import atoll
from atoll.telemetry.standing_metrics import Standing

if TYPE_CHECKING:
    from atoll.app import Application


def standing_of(app: Application) -> Standing:
    """How it stands when somebody looks."""
    second = app.second_store
    return Standing(
        atoll.__version__,
        isolated=lambda: app.isolation.proved,
        backup_age_s=lambda: None if second is None else second.backup_age_s(),
        disks=dict(zip(("data", "trees", "blobs"), app.settings.disks, strict=False)),
    )
