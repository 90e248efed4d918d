"""The MCP server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.security.route import Route

ROUTES: dict[str, Route] = {}
PARAMETERS: dict[str, str] = {}  # what stands in paths, where a line does not say otherwise
MAKERS: tuple[Callable[[Any, Any], Awaitable[dict[str, str]]], ...] = ()  # of things: see things.py
NOBODYS: dict[str, str] = {}  # of the same form, and nobody's
BESIDE: dict[str, str] = {}  # see effects.py
CALLS: list[tuple[str, set[str]]] = []
UNCHANGED: set[str] = set()
