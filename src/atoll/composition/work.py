"""Where work is done in an application: its sandboxes, and the tasks that agents do in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.limits import service_limits, task_limits
from atoll.services.charging.spending import Spending
from atoll.services.sandbox_parts import make_sandbox_parts
from atoll.services.sandboxes import Sandboxes
from atoll.services.tasks.parts import make_tasks
from atoll.services.tasks.tasks import Tasks

if TYPE_CHECKING:
    from atoll.app import Application


def sandboxes_of(app: Application, spending: Spending) -> Sandboxes:
    """They mount its workspaces and are given its secrets."""
    settings = app.settings
    return Sandboxes(
        make_sandbox_parts(
            app.records,
            app.runtime,
            settings.data,
            limits=service_limits(settings),
            aliases=settings.images.aliases,
            quotas=app.quotas,
            metrics=app.metrics,
            workspaces=app.workspaces.mounts,
            secrets=app.giving,
            agents=app.installs,
            spending=spending,
        )
    )


def tasks_of(app: Application) -> Tasks:
    """In its sandboxes, by its agents; they ask its models."""
    return make_tasks(
        app.records,
        app.runtime,
        app.sandboxes,
        app.workspaces,
        app.agents,
        app.installs,
        app.memberships,
        app.connected.scopes_left,
        app.ledger,
        app.model_calls.check,
        name_file=app.settings.folder.server_name,
        limits=task_limits(app.settings),
        metrics=app.metrics,
    )
