"""Places: what a request for a preview names: a sandbox and a port, by its path or by the host that it asks for.

The door of previews reads requests with it before any route does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.types import Scope

from atoll.services.previews.previews import sandbox_of

PORT_MAX = 65_535
_BY_PATH = re.compile(rb"/preview/([^/]{1,128})/([0-9]{1,5})(/.*)?", re.DOTALL)
_PORT_FIRST = re.compile(r"([0-9]{1,5})-(.{1,128})")
_PORT_LAST = re.compile(r"(.{1,128})-([0-9]{1,5})")
# What browsers leave out of an address, or read as another character than it is: a backslash is a slash to them.
_MISREAD = re.compile(rb"[^!-\[\]-~]")


ROUTE = "/preview/{sandbox}/{port}/{path:path}"
BY_HOST = "preview host"  # stands for the route of what comes by host name, in metrics and logs


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request wants to go. `port` None is the sandbox's own API."""

    sandbox: str
    port: int | None
    path: bytes  # as it came, without the query; empty: the slash is missing
    prefix: str = ""  # the path below which it is previewed; empty: it has a host of its own


def route_of(prefix: str) -> str:
    """What metrics and logs call it."""
    return ROUTE if prefix else BY_HOST


def with_query(path: bytes, query: bytes) -> bytes:
    return path + b"?" + query if query else path


def address_of(place: Place, query: bytes) -> str:
    """The place as a Location on the host that was asked, however its path begins."""
    path = place.prefix.encode("latin-1") + (place.path or b"/")
    path = b"/." + path if path.startswith(b"//") else path  # else another host would follow
    return _MISREAD.sub(lambda found: b"%%%02X" % ord(found[0]), with_query(path, query)).decode("ascii")


def host_of(scope: Scope) -> bytes:
    """The host that was asked for, with its port."""
    for name, value in scope["headers"]:
        if name == b"host":
            return value
    return b""


def by_path(scope: Scope) -> Place | None:
    """None for a path that is no preview's."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("latin-1", "replace")
    found = _BY_PATH.fullmatch(raw)
    if found is None:
        return None
    sandbox, port, path = found.groups()
    number = int(port)
    if not 0 < number <= PORT_MAX:
        return None
    sandbox_text = sandbox.decode("latin-1")
    return Place(sandbox_text, number, path or b"", f"/preview/{sandbox_text}/{port.decode()}")


def by_host(scope: Scope, domain: str) -> Place | str | None:
    """None for a host outside the domain; the label, for one in it that names nothing."""
    host = host_of(scope).decode("latin-1").lower().rstrip(".")
    name = host.rpartition(":")[0] if ":" in host else host
    name = name.rstrip(".")
    if not name.endswith(domain) or name[-len(domain) - 1 : -len(domain)] != ".":
        return None
    label = name[: -len(domain) - 1]
    path: bytes = scope.get("raw_path") or b"/"
    if not path.startswith(b"/"):  # a whole address, which uvicorn leaves to WebSockets as it came
        return label
    sandbox_id = sandbox_of(label)
    if sandbox_id is not None:
        return Place(sandbox_id, None, path)
    for pattern, (port, sandbox) in ((_PORT_FIRST, (1, 2)), (_PORT_LAST, (2, 1))):
        found = pattern.fullmatch(label)
        sandbox_id = None if found is None else sandbox_of(found[sandbox])
        if found is not None and sandbox_id is not None and 0 < int(found[port]) <= PORT_MAX:
            return Place(sandbox_id, int(found[port]), path)
    return label
