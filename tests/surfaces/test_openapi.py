"""The document says what the application serves, no more and no less, and its pages need nobody else's server."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from starlette.routing import Route

from atoll.surfaces.openapi import yaml as to_yaml


def served(app: Any) -> set[tuple[str, str]]:
    """(method, path) of everything the running application routes, however it was made."""
    found: set[tuple[str, str]] = set()
    for route in app.routes:
        path = re.sub(r":[a-z]+}", "}", route.path)
        methods = getattr(route, "methods", None) or {one.method for one in getattr(route, "operations", ())}
        found |= {("get" if method == "WEBSOCKET" else method.lower(), path) for method in methods or {"?"}}
    return found


def documented(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method, path) for path, item in document["paths"].items() for method in item}


async def test_every_route_stands_in_the_document(house: Any) -> None:
    document = (await house.call("GET", "/openapi.json", None)).json()
    assert documented(document) == served(house.app)


async def test_a_route_that_declares_nothing_is_noticed(house: Any) -> None:
    async def stray(_request: Any) -> None: ...

    house.app.routes.append(Route("/stray", stray))
    document = (await house.call("GET", "/openapi.json", None)).json()
    assert ("get", "/stray") in served(house.app) - documented(document)


async def test_the_promised_endpoints_are_there(house: Any) -> None:
    """The seed's own list."""
    promised = {
        ("get", "/health"), ("post", "/v1/sessions"), ("get", "/v1/sessions"), ("get", "/v1/sessions/{id}"),
        ("post", "/v1/sessions/{id}/stop"), ("delete", "/v1/sessions/{id}"), ("get", "/v1/sessions/{id}/attach"),
        ("get", "/v1/sessions/{id}/exec"), ("post", "/v1/sessions/{id}/files"), ("get", "/v1/sessions/{id}/files"),
        ("get", "/v1/sessions/{id}/url"),
    }  # fmt: skip
    assert promised <= served(house.app)


async def test_yaml_and_json_are_the_same_document(house: Any) -> None:
    as_json = (await house.call("GET", "/openapi.json", None)).json()
    as_yaml = await house.call("GET", "/openapi.yaml", None)
    assert as_yaml.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(as_yaml.text) == as_json


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": []},
        {"a": {}},
        [[1, 2], {"b": None}],
        {"a: b": "c: d", "e": "#x", "f": "- y", "": "é\n"},
        1.5,
        "no",
    ],
)
def test_yaml_says_what_it_was_given(value: Any) -> None:
    assert yaml.safe_load(to_yaml(value)) == value


async def test_operation_ids_are_unique_and_references_resolve(house: Any) -> None:
    document = (await house.call("GET", "/openapi.json", None)).json()
    ids = [item["operationId"] for path in document["paths"].values() for item in path.values()]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'"\$ref":\s*"#/components/schemas/([^"]+)"', str(document).replace("'", '"')))
    assert references <= set(document["components"]["schemas"])


async def test_the_pages_load_nothing_from_elsewhere(house: Any) -> None:
    for page in ("/docs", "/redoc"):
        answer = await house.call("GET", page, None)
        assert answer.status_code == 200
        assert not re.search(r"(?:https?:)?//", answer.text.replace("<!doctype", ""))
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "http" not in policy
        for asset in re.findall(r'(?:src|href)="(docs/assets/[^"]+)"', answer.text):
            got = await house.call("GET", "/" + asset, None)
            assert (got.status_code, len(got.content) > 50) == (200, True), asset
            assert got.headers["content-type"].split(";")[0] in ("text/javascript", "text/css", "image/png")


@pytest.mark.parametrize("name", ["nothing.js", "..%2fcore.py", "%2e%2e", "favicon.png%00"])
async def test_only_known_assets_are_served(house: Any, name: str) -> None:
    assert (await house.call("GET", f"/docs/assets/{name}", None)).status_code == 404


async def test_the_pages_can_be_turned_off(open_house: Any) -> None:
    async with open_house(api={"docs": False}) as house:
        for path in ("/docs", "/redoc", "/openapi.json", "/openapi.yaml", "/docs/assets/start.js"):
            assert (await house.call("GET", path, None)).status_code == 404
