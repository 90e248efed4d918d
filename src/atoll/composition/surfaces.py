"""What the surfaces of an application stand on besides its services: commands that are done once, and previews."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.composition.rates import has_peers
from atoll.limits import carry_limits, preview_limits
from atoll.services.idempotency import Idempotency
from atoll.surfaces.once import OnceOnly
from atoll.surfaces.previews.parts import PreviewParts

if TYPE_CHECKING:
    from atoll.app import Application


def once_of(app: Application) -> OnceOnly:
    own = app.settings.quotas
    requests = Idempotency(
        app.records,
        kept_s=own.idempotency_h * 3600,
        answer_bytes_max=own.idempotency_answer_bytes,
        owner_bytes_max=own.idempotency_owner_bytes,
        shared=has_peers(app.settings),
    )
    return OnceOnly(requests, app.settings.server.body_bytes)


def showing_of(app: Application) -> PreviewParts:
    settings = app.settings
    return PreviewParts(
        app.records,
        app.connected,
        app.sandboxes,
        app.workspaces,
        app.auth.signing_keys,
        issuer=settings.auth.issuer,
        limits=preview_limits(settings),
        carry=carry_limits(settings),
        health_s=settings.previews.health_s,
    )
