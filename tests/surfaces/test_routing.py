"""Which path is which route's: every character of a name counts, line ends too."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.routing import Match

from atoll.surfaces.execbox.errors import ExecboxDialect
from atoll.surfaces.routing import PathRoute


def params(template: str, path: str, raw: bytes = b"") -> dict[str, str] | None:
    route = PathRoute(template, [], None, ExecboxDialect())  # type: ignore[arg-type]
    scope: dict[str, Any] = {"type": "http", "path": path, "raw_path": raw or path.encode()}
    match, more = route.matches(scope)
    return more["path_params"] if match is Match.FULL else None


@pytest.mark.parametrize("name", ["a", "a/b", "/abs", "line\nend", "\n", "end\n", "a\r\nb", "ü", "a b", "..", ""])
def test_a_path_may_hold_anything(name: str) -> None:
    assert params("/f/{path:path}", f"/f/{name}") == {"path": name}


def test_a_line_end_after_a_path_is_another_path() -> None:
    assert params("/health", "/health") == {}
    assert params("/health", "/health\n") is None
    assert params("/s/{id}/files", "/s/1/files\n") is None
    assert params("/s/{id}", "/s/1\n") == {"id": "1\n"}


def test_an_encoded_slash_is_part_of_a_name() -> None:
    assert params("/w/{ws}/files", "/w/a/b/files", b"/w/a%2Fb/files") == {"ws": "a/b"}
    assert params("/w/{ws}/files", "/w/a/b/files", b"/w/a/b/files") is None


async def test_a_file_whose_name_has_line_ends_is_written_read_and_removed(house: Any) -> None:
    ws = (await house.call("POST", "/v1/workspaces", json={"name": "lines"})).json()["id"]
    up = await house.call(
        "POST", f"/workspace/{ws}/upload", files={"file": ("plain", b"x")}, data={"path": "a\nfolder"}
    )
    assert up.status_code in (200, 400), up.text  # whether a form carries it is the form's affair
    got = await house.call("GET", f"/workspace/{ws}/download/no%0Asuch")
    assert (got.status_code, got.json()["error"]) == (404, "File not found")
