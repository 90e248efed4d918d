"""The audit trail, as this dialect serves it: lists of events, and a stream of server-sent ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput
from atoll.domain.event import Event, EventQuery
from atoll.domain.principal import Principal
from atoll.services.audit.events import Events
from atoll.surfaces.bodies import Stream, begun, close_iterator, json_response
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.extensions import LASTS
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import Answer, Operation, Parameter

EVENTS = "/api/events"
STREAM = EVENTS + "/stream"
MEDIA = "text/event-stream"
LIMIT, LIMIT_MAX = 100, 1_000
AGAIN_MS = 2_000  # after which a client whose stream broke off comes back

ACTION = Parameter("action", "noun.verb, or noun.* for all of a noun; * for all", max_chars=128)
TARGET = Parameter("target", "the id of what was changed", max_chars=256)
ACTOR = Parameter("actor", "the id of who did it", max_chars=256)
OUTCOME = Parameter("outcome", "ok, refused, failed, ...", max_chars=64)
REQUEST = Parameter("request_id", "the request's X-Request-Id", max_chars=64)
TENANT = Parameter(
    "tenant", "one's own id or that of a group of one's own; for administrators any, or * for all", max_chars=256
)
SINCE = Parameter("since", "a moment, RFC 3339: events from then on", max_chars=64)
UNTIL = Parameter("until", "a moment, RFC 3339: events before it", max_chars=64)
AFTER = Parameter("after_id", "events behind the one with this id", int, minimum=0, maximum=2**63 - 1)
BEFORE = Parameter("before_id", "events before the one with this id", int, minimum=0, maximum=2**63 - 1)
ORDER = Parameter("order", "which come first; default: oldest", choices=("oldest", "newest"))
COUNT = Parameter("limit", f"at most so many; default: {LIMIT}", int, minimum=1, maximum=LIMIT_MAX)


class EventAnswer(AnswerModel):
    """One event. `seq`, `previous` and `hash` are its place in the tenant's chain."""

    id: int
    at: datetime
    tenant: str
    actor: str
    action: str
    target: str
    outcome: str
    credential: str | None
    request_id: str | None
    address: str | None
    detail: dict[str, Any]
    seq: int
    previous: str
    hash: str


class EventsAnswer(AnswerModel):
    events: list[EventAnswer]


class EventHandlers:
    """One method for each operation."""

    def __init__(self, events: Events) -> None:
        self._events = events

    async def list(self, request: Request, principal: Principal) -> Response:
        target = TARGET.text(request)
        query = EventQuery(
            targets=None if target is None else (target,),
            action=ACTION.text(request),
            actor=ACTOR.text(request),
            outcome=OUTCOME.text(request),
            request_id=REQUEST.text(request),
            since=_moment(request, SINCE),
            until=_moment(request, UNTIL),
            after_id=AFTER.number(request),
            before_id=BEFORE.number(request),
            newest_first=ORDER.text(request) == "newest",
            limit=COUNT.number(request) or LIMIT,
        )
        found = await self._events.find(principal, query, TENANT.text(request))
        return json_response({"events": [event_answer(event) for event in found]})

    async def stream(self, request: Request, principal: Principal) -> Response:
        after_id = _last_event_id(request)
        events = self._events.stream(
            principal,
            tenant=TENANT.text(request),
            action=ACTION.text(request),
            after_id=AFTER.number(request) if after_id is None else after_id,
        )
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        if (lasts := request.scope.get("extensions", {}).get(LASTS)) is not None:
            lasts()
        return Stream(await begun(_frames(events)), headers=headers, media_type=MEDIA)


def event_answer(event: Event) -> dict[str, Any]:
    """An event as every answer, stream and webhook tells it."""
    return {
        "id": event.id,
        "at": event.at,
        "tenant": event.tenant,
        "actor": event.actor,
        "action": event.action,
        "target": event.target,
        "outcome": event.outcome,
        "credential": event.credential,
        "request_id": event.request_id,
        "address": event.address,
        "detail": event.detail,
        "seq": event.seq,
        "previous": event.previous.hex(),
        "hash": event.hash.hex(),
    }


async def _frames(events: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            if event is None:
                yield b"retry: %d\n\n" % AGAIN_MS  # keeps those on the way from hanging up, too
            else:
                text = to_json(event_answer(event))
                yield b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id or 0, event.action.encode(), text)
    finally:
        await close_iterator(events)


def _last_event_id(request: Request) -> int | None:
    text = request.headers.get("last-event-id")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput("Last-Event-ID must be the id of an event", field="Last-Event-ID")
    return int(text)


def _moment(request: Request, parameter: Parameter) -> datetime | None:
    text = parameter.text(request)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{parameter.name} must be a moment such as 2026-01-31T12:00:00Z", field=parameter.name
        ) from None


def operations(events: Events) -> list[Operation]:
    """What is served of events."""
    of = EventHandlers(events)
    tag, error = "events", ComputeError
    return [
        Operation(
            "GET", EVENTS, of.list, "listEvents", "Who did what to what, of you and your groups",
            answers=(Answer(200, "the events", EventsAnswer),),
            parameters=(
                ACTION, TARGET, ACTOR, OUTCOME, REQUEST, TENANT, SINCE, UNTIL, AFTER, BEFORE, ORDER, COUNT,
            ),
            errors=(400, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", STREAM, of.stream, "streamEvents", "Events as they happen, as server-sent ones",
            answers=(Answer(200, "one message for each event, its id for Last-Event-ID", None, MEDIA),),
            parameters=(ACTION, TENANT, AFTER), errors=(400, 503), tag=tag, error=error,
        ),
    ]  # fmt: skip
