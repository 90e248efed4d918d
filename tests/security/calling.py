"""How tests call any route of the server by its line in routes.py, with the ids of somebody's things."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from websockets.exceptions import InvalidStatus

from atoll.surfaces.operation import WEBSOCKET, Operation
from tests.security.routes import PARAMETERS, ROUTES, Route
from tests.security.things import Ids

ANSWER_S = 20.0
BODY_BYTES = 65_536  # of an answer that need not end


def line(operation: Operation) -> Route:
    return ROUTES[operation.id]


def things(operation: Operation) -> dict[str, str]:
    """What the path names, by parameter: a thing, or with a / before it a text."""
    of = line(operation).of
    names = [part.strip("{}").partition(":")[0] for part in operation.path.split("/") if part.startswith("{")]
    for name in names:
        assert name in of or name in PARAMETERS, f'{operation.id}: say in its line of={{"{name}": …}} what that is'
    return {name: of.get(name, PARAMETERS.get(name, "")) for name in names}


def target(operation: Operation, ids: Ids, inside: Ids | None = None) -> str:
    """The path with its query; `ids` stand in the path, `inside` in the query."""
    path = operation.path
    for name, thing in things(operation).items():
        value = thing[1:] if thing.startswith("/") else ids[thing]
        path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
    query = line(operation).query
    return path + ("?" + filled(query, inside or ids) if query else "")


def filled(text: str, ids: Ids) -> str:
    for name, value in ids.items():
        text = text.replace(f"<{name}>", value)
    return text


async def knock(
    house: Any, operation: Operation, ids: Ids, key: str | None, inside: Ids | None = None, **more: Any
) -> tuple[int, bytes]:
    """The status and body of the answer; of a WebSocket, before any upgrade (101: it was let in)."""
    where = target(operation, ids, inside)
    async with asyncio.timeout(ANSWER_S):
        if operation.method == WEBSOCKET:
            try:
                async with house.socket(where, key, **more):
                    return 101, b""
            except InvalidStatus as refused:
                return refused.response.status_code, refused.response.body or b""
        body = line(operation).body
        if body is None or isinstance(body, bytes):
            sent: dict[str, Any] = {} if body is None else {"content": body}
        else:
            sent = {"json": json.loads(filled(json.dumps(body), inside or ids))}
        headers = house.headers(key) | more.pop("headers", {})
        async with house.http.stream(operation.method, house.url + where, headers=headers, **sent) as answer:
            if answer.status_code == 200 and answer.headers.get("content-type", "").startswith("text/event-stream"):
                return 200, b""  # it goes on
            found = b""
            async for piece in answer.aiter_bytes():
                found += piece
                if len(found) > BODY_BYTES:
                    break
            return answer.status_code, found


def unnamed(answer: tuple[int, bytes], asked: Ids) -> tuple[int, bytes]:
    """Without the id that was asked for, which an answer may repeat."""
    status, body = answer
    for text in asked.values():
        body = body.replace(text.encode(), b"<asked>")
    return status, body
