"""Q02: specs/openapi.yaml is what the server serves; `make openapi` renews it."""

from __future__ import annotations

import json
from typing import Any

import yaml

from scripts.openapi import FILE, document


def test_q02_the_document_that_is_served_is_the_one_that_is_kept() -> None:
    kept: dict[str, Any] = yaml.load(FILE.read_text(), yaml.CSafeLoader)
    served: dict[str, Any] = json.loads(json.dumps(document()))
    paths = {
        path
        for path in set(kept["paths"]) | set(served["paths"])
        if kept["paths"].get(path) != served["paths"].get(path)
    }
    schemas = {
        name
        for name in set(kept["components"]["schemas"]) | set(served["components"]["schemas"])
        if kept["components"]["schemas"].get(name) != served["components"]["schemas"].get(name)
    }
    assert (paths, schemas) == (set(), set()), "the API has changed: is that meant? Then `make openapi`"
    assert kept == served
