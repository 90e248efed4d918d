"""The gateway of an application: where what comes out of its sandboxes goes: its own API, the world, a model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atoll.gateway.api import ApiGateway
from atoll.gateway.egress import Egress
from atoll.gateway.gateway import Gateway
from atoll.gateway.models import model_streams
from atoll.gateway.resolver import NameServers
from atoll.services.authorities import Authorities
from atoll.surfaces.credentials import FOUND
from atoll.surfaces.serving import http_config
from atoll.surfaces.transport import Http

if TYPE_CHECKING:
    from atoll.app import Application


def gateway_of(app: Application, authorities: Authorities) -> Gateway:
    """Not the servant of the sandboxes' gates yet."""
    settings = app.settings
    egress = Egress(
        NameServers(settings.network.resolvers),
        giving=app.giving,
        authorities=authorities,
        ca_file=settings.network.ca_file,
        left=app.sandboxes.egress_quota.left,
        metrics=app.metrics,
    )
    api = ApiGateway(app, http_config(app, settings), Http, app.connected, FOUND)
    models = model_streams(app.model_calls, partial(http_config, settings=settings), Http)
    return Gateway(api, egress, app.connected, models)
