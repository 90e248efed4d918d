"""The deliveries of an application's webhooks: events as the surface tells them, to owners that still stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.limits import delivery_limits
from atoll.services.identity.principals import Principals
from atoll.services.webhooks.delivering import Deliveries
from atoll.services.webhooks.owners import Owners
from atoll.surfaces.computesdk.events import event_answer

if TYPE_CHECKING:
    from atoll.app import Application


def deliveries_of(app: Application) -> Deliveries:
    """Not started."""
    owners = Owners(app.records, Principals(app.records), app.connected.scopes_left)
    return Deliveries(
        app.records,
        app.vault,
        app.outbound,
        event_answer,
        owners.why_not,
        app.metrics,
        delivery_limits(app.settings),
    )
