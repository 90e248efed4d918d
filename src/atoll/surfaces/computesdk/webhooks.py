"""Webhooks, as this dialect serves them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.domain.webhook import Webhook
from atoll.services.webhooks.webhooks import EVERYTHING, NewSecret, Webhooks
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.models import AnswerModel, BodyModel
from atoll.surfaces.operation import Answer, Operation

WEBHOOKS = "/api/webhooks"
WEBHOOK = WEBHOOKS + "/{hook}"
Url = Annotated[str, Field(min_length=1, max_length=2048)]
Actions = Annotated[list[Annotated[str, Field(max_length=130)]], Field(max_length=50)]
Text = Annotated[str, Field(max_length=1000)]


class WebhookBody(BodyModel):
    """POST /api/webhooks."""

    url: Url = Field(description="https, with a public address")
    events: Actions | None = Field(None, description="noun.verb or noun.*; default: all")
    description: Text = ""
    group_id: Annotated[str, Field(max_length=64)] | None = Field(None, description="tell of the group's events")
    all_tenants: bool = Field(False, description="tell of everybody's events; for administrators")


class WebhookChangesBody(BodyModel):
    """PATCH /api/webhooks/{hook}."""

    url: Url | None = None
    events: Actions | None = None
    description: Text | None = None
    enabled: bool | None = Field(None, description="true: begin again with what was not delivered")


class WebhookAnswer(AnswerModel):
    """A webhook, and how its deliveries go."""

    id: str = Field(pattern=r"^hook_[0-9a-f]{24}$")
    owner_id: str
    created_by: str = Field(description="who gave it its URL or enabled it: it ends when they may not read any more")
    url: str
    events: list[str]
    description: str
    all_tenants: bool
    enabled: bool
    disabled_at: datetime | None
    disabled_why: str | None
    created_at: datetime
    failures: int
    failing_since: datetime | None
    next_at: datetime | None
    delivered_at: datetime | None
    last_error: str | None


class NewWebhookAnswer(WebhookAnswer):
    """With its secret, which is told only now."""

    secret: str


class WebhooksAnswer(AnswerModel):
    webhooks: list[WebhookAnswer]


class WebhookDeletedAnswer(AnswerModel):
    deleted: bool


class WebhookHandlers:
    """One method for each operation."""

    def __init__(self, webhooks: Webhooks, settings: Settings) -> None:
        self._webhooks = webhooks
        self._body_bytes = settings.server.body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, WebhookBody, self._body_bytes)
        made = await self._webhooks.create(
            principal,
            body.url,
            actions=EVERYTHING if body.events is None else body.events,
            description=body.description,
            group=body.group_id,
            everyone=body.all_tenants,
        )
        return json_response(_with_secret(made), 201)

    async def list(self, _request: Request, principal: Principal) -> Response:
        return json_response({"webhooks": [_webhook(one) for one in await self._webhooks.list(principal)]})

    async def get(self, request: Request, principal: Principal) -> Response:
        return json_response(_webhook(await self._webhooks.get(principal, request.path_params["hook"])))

    async def change(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, WebhookChangesBody, self._body_bytes)
        changed = await self._webhooks.change(
            principal,
            request.path_params["hook"],
            url=body.url,
            actions=body.events,
            description=body.description,
            enabled=body.enabled,
        )
        return json_response(_webhook(changed))

    async def delete(self, request: Request, principal: Principal) -> Response:
        await self._webhooks.delete(principal, request.path_params["hook"])
        return json_response({"deleted": True})

    async def renew_secret(self, request: Request, principal: Principal) -> Response:
        return json_response(_with_secret(await self._webhooks.renew_secret(principal, request.path_params["hook"])))


def _webhook(one: Webhook) -> dict[str, Any]:
    return {
        "id": one.id,
        "owner_id": one.owner,
        "created_by": one.maker,
        "url": one.url,
        "events": list(one.actions),
        "description": one.description,
        "all_tenants": one.everyone,
        "enabled": one.disabled_at is None,
        "disabled_at": one.disabled_at,
        "disabled_why": one.disabled_why,
        "created_at": one.created_at,
        "failures": one.failures,
        "failing_since": one.failing_since,
        "next_at": one.next_at,
        "delivered_at": one.delivered_at,
        "last_error": one.last_error,
    }


def _with_secret(made: NewSecret) -> dict[str, Any]:
    return _webhook(made.webhook) | {"secret": made.text}


def operations(webhooks: Webhooks, settings: Settings) -> list[Operation]:
    """What is served of webhooks."""
    if not settings.webhooks.enabled:
        return []
    of = WebhookHandlers(webhooks, settings)
    tag, error, lost, body = "webhooks", ComputeError, (404, 503), (400, 413)
    webhook = Answer(200, "the webhook", WebhookAnswer)
    return [
        Operation(
            "POST", WEBHOOKS, of.create, "createWebhook", "Tell a URL of events",
            answers=(Answer(201, "the webhook with its secret", NewWebhookAnswer),),
            body=WebhookBody, errors=(*body, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", WEBHOOKS, of.list, "listWebhooks", "Your webhooks and those of your groups, oldest first",
            answers=(Answer(200, "the webhooks", WebhooksAnswer),), errors=(503,), tag=tag, error=error,
        ),
        Operation(
            "GET", WEBHOOK, of.get, "getWebhook", "Look at a webhook, and how its deliveries go",
            answers=(webhook,), errors=lost, tag=tag, error=error,
        ),
        Operation(
            "PATCH", WEBHOOK, of.change, "changeWebhook", "Change a webhook, switch it off or on again",
            answers=(webhook,), body=WebhookChangesBody, errors=(*body, 409, *lost), tag=tag, error=error,
        ),
        Operation(
            "DELETE", WEBHOOK, of.delete, "deleteWebhook", "Tell it of nothing any more",
            answers=(Answer(200, "it is gone", WebhookDeletedAnswer),), errors=lost, tag=tag, error=error,
        ),
        Operation(
            "POST", WEBHOOK + "/secret", of.renew_secret, "renewWebhookSecret", "A new secret for its signatures",
            answers=(Answer(200, "the webhook with its secret", NewWebhookAnswer),), errors=(409, *lost),
            tag=tag, error=error,
        ),
    ]  # fmt: skip
