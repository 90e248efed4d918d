"""The OpenAPI document of a running application, built from the operations that its routes serve.

The ops surface serves it as JSON and YAML; nothing in it is written twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from atoll.surfaces.operation import JSON, WEBSOCKET, Answer, Operation, Parameter

REF = "#/components/schemas/{model}"
EVENT_STREAM = "text/event-stream"
SECURITY, KEY_HEADER, ADMIN_HEADER = "apiKey", "apiKeyHeader", "adminKeyHeader"
ALWAYS = (400, 401, 429, 500)  # what any protected operation may answer
_TYPES = {str: "string", int: "integer", bool: "boolean"}
_IN_PATH = re.compile(r"{([a-z]+)(?::[a-z]+)?}")
_PATH_WORDS = {
    "id": "the session's id",
    "pid": "the process's id, `main` for the main one",
    "file": "a file",
    "ws": "the workspace's id in any spelling, or the name of one's own",
    "workspace": "the workspace's id, a UUID",
    "fs": "the file system's id",
    "rev": "HEAD, HEAD~2, a number, rev_..., a snapshot's id or name, or a moment",
    "snap": "the snapshot's id",
    "hook": "the webhook's id",
    "principal": "the collaborator's id: its key's",
    "agent": "the collaborator's id: its key's",
    "key": "the key's id",
}

Document = dict[str, Any]

IDEMPOTENCY_KEY: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "a random text of yours: sent again with it, the request has no second effect, and the same answer",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


def document(
    operations: Iterable[Operation], error: type[BaseModel], *, version: str, title: str = "Atoll"
) -> Document:
    """The whole document. `error` is the model of every error body that has none of its own."""
    found = list(operations)
    errors = {one.error or error for one in found}
    models = dict.fromkeys({*_answer_models(found), *errors}, "serialization")
    models |= {one.body: "validation" for one in found if isinstance(one.body, type)}
    # Request and answer models have different names, so that one table of schemas can hold both.
    refs, definitions = models_json_schema(
        [(model, mode) for model, mode in models.items()],  # type: ignore[list-item]
        ref_template=REF,
    )
    schemas = {model: refs[model, mode] for model, mode in models.items()}  # type: ignore[index]
    paths: Document = {}
    for one in found:
        path = _IN_PATH.sub(r"{\1}", one.path)
        method = "get" if one.method == WEBSOCKET else one.method.lower()
        paths.setdefault(path, {})[method] = _operation(one, schemas, schemas[one.error or error])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": "Computers on demand: isolated sandboxes and workspaces over several protocols.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {
                SECURITY: {"type": "http", "scheme": "bearer"},
                KEY_HEADER: {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                ADMIN_HEADER: {"type": "apiKey", "in": "header", "name": "X-Admin-Key"},
            },
        },
    }


def _answer_models(operations: list[Operation]) -> set[type[BaseModel]]:
    return {answer.schema for one in operations for answer in one.answers if isinstance(answer.schema, type)}


def _operation(one: Operation, schemas: dict[type, Any], error: Any) -> Document:
    described: Document = {
        "operationId": one.id,
        "summary": one.summary,
        "tags": [one.tag],
        "parameters": [
            *_path_parameters(one.path),
            *(_parameter(each) for each in one.parameters),
            *([IDEMPOTENCY_KEY] if one.once is not None else []),
        ],
        "responses": _responses(one, schemas, error),
    }
    if one.description:
        described["description"] = one.description
    if one.method == WEBSOCKET:
        described["x-websocket"] = True
    if one.body is not None:
        content = {JSON: {"schema": schemas[one.body]}} if isinstance(one.body, type) else {one.body: _binary()}
        described["requestBody"] = {"required": one.body_required, "content": content}
    own: list[Document] = [] if one.header is None else [{ADMIN_HEADER: []}]
    described["security"] = [] if one.public else [{SECURITY: []}, {KEY_HEADER: []}, *own]
    return described


def _path_parameters(path: str) -> list[Document]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_WORDS.get(name, name),
            "schema": {"type": "string"},
        }
        for name in _IN_PATH.findall(path)
    ]


def _parameter(one: Parameter) -> Document:
    schema: Document = {"type": _TYPES[one.kind]}
    if one.choices:
        schema["enum"] = list(one.choices)
    elif one.kind is str:
        schema["maxLength"] = one.max_chars
    if one.minimum is not None:
        schema["minimum"] = one.minimum
    if one.maximum is not None:
        schema["maximum"] = one.maximum
    if one.repeatable:
        schema = {"type": "array", "items": schema, "maxItems": one.max_items}
        if one.required:
            schema["minItems"] = 1
    return {
        "name": one.name,
        "in": "query",
        "required": one.required,
        "description": one.description,
        "schema": schema,
    }


def _responses(one: Operation, schemas: dict[type, Any], error: Any) -> Document:
    responses: Document = {}
    for answer in one.answers:
        known = responses.setdefault(str(answer.status), {"description": answer.description})
        if answer.headers:
            known["headers"] = {
                name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers
            }
        _add_content(known, answer, schemas)
    failures = one.errors if one.public else (*ALWAYS, 403, *one.errors)
    if one.once is not None:
        failures = (*failures, 409, 422, 503)
    for status in sorted(set(failures) | ({429} if one.public else set())):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {JSON: {"schema": error}},
        }
    return responses


def _add_content(response: Document, answer: Answer, schemas: dict[type, Any]) -> None:
    if answer.status in (HTTPStatus.SWITCHING_PROTOCOLS, HTTPStatus.NO_CONTENT):
        return
    content = response.setdefault("content", {})
    if answer.media == EVENT_STREAM and answer.schema is None:
        content[answer.media] = {}  # of events, each of a form of its own
        return
    if answer.schema is None:
        text = answer.media.startswith("text/")
        content[answer.media] = {"schema": {"type": "string"}} if text else _binary()
        return
    schema = schemas[answer.schema] if isinstance(answer.schema, type) else answer.schema
    before = content.get(answer.media)
    if before is None:
        content[answer.media] = {"schema": schema}
    else:
        either = before["schema"].get("anyOf", [before["schema"]])
        content[answer.media] = {"schema": {"anyOf": [*either, schema]}}


def _binary() -> Document:
    return {"schema": {"type": "string", "format": "binary"}}


def yaml(value: Any, indent: int = 0) -> str:
    """Plain data as block-style YAML; scalars are written as JSON, which YAML 1.2 contains."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{json.dumps(str(key))}:{_nested(item, indent)}" for key, item in value.items())  # pyright: ignore
    if isinstance(value, list) and value:
        return "".join(f"{pad}-{_nested(item, indent)}" for item in value)  # pyright: ignore
    return f"{pad}{json.dumps(value)}\n"


def _nested(value: Any, indent: int) -> str:
    if isinstance(value, (dict, list)) and value:
        return "\n" + yaml(value, indent + 1)
    return f" {json.dumps(value)}\n"
