"""The workspaces of an application, put together as the settings want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.limits import storage_limits, workspace_limits
from atoll.services.workspaces.parts import Parts, make_parts

if TYPE_CHECKING:
    from atoll.app import Application


def workspace_parts_of(app: Application) -> Parts:
    """Over its plug points and quotas."""
    settings = app.settings
    return make_parts(
        app.records,
        app.runtime,
        app.blobs,
        app.vault,
        settings.folder.stamps,
        limits=workspace_limits(settings),
        storage_limits=storage_limits(settings),
        metrics=app.metrics,
        snapshot_files=settings.workspaces.snapshot_files,
        folder=settings.workspaces.folder,
        disks=settings.disks,
        quotas=app.quotas,
    )
