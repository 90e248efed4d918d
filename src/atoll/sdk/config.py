"""Where the server is and which key opens it: arguments, then ATOLL_URL and ATOLL_API_KEY, then this machine's own.

`resolve` is called for every sandbox that is made or looked up, so that it keeps its answer while nothing changed.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from atoll.domain.data_folder import DataFolder
from atoll.domain.errors import InvalidInput, Unauthenticated
from atoll.sdk.errors import ConnectionFailed
from atoll.sdk.local_server import NOTE, data_folder, read_note

DEFAULT_URL = "http://127.0.0.1:8080"
NO_KEY = "none"  # is sent where none is needed
_KEY_BYTES_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Config:
    """A server and a key for it. `tls` is for https; `prefix` is the URL's own path, without a slash at its end."""

    url: str
    api_key: str = field(repr=False)
    host: str
    port: int
    tls: bool
    prefix: str


def resolve(url: str | None = None, api_key: str | None = None) -> Config:
    """InvalidInput for a URL or key that cannot be one; Unauthenticated when no key is known or the data folder may not
    be read; ConnectionFailed when no URL is given and this machine's own server does not run."""
    data = data_folder()
    url = url or os.environ.get("ATOLL_URL")
    if api_key is None:
        api_key = os.environ.get("ATOLL_API_KEY")
    if api_key is not None and not api_key.strip():
        # as of `ATOLL_API_KEY=$(cat token)` where there is no token: not to be taken for the owner
        unset = "unset it to use the key of this machine's own server"
        raise InvalidInput(f"the API key (api_key, ATOLL_API_KEY) is empty: {unset}", field="api_key")
    note = _stamp(data.root / NOTE) if url is None else None
    key = _stamp(data.owner_key) if api_key is None else None
    usual = url is None and note is None and bool(api_key) and not _is_used(data)
    return _resolve(url or (DEFAULT_URL if usual else None), api_key, data, note, key)


@lru_cache(maxsize=64)
def _resolve(url: str | None, api_key: str | None, data: DataFolder, note: object, key: object) -> Config:
    if url is None:
        url = _own_url(data)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"ATOLL_URL must look like http://host:port, not {url!r}", field="url")
    tls = parts.scheme == "https"
    api_key = api_key or _known_inside(url) or _owner_key(data, parts.hostname)
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise InvalidInput("the API key has characters that no key has", field="api_key")
    return Config(
        url=url.rstrip("/"),
        api_key=api_key,
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        tls=tls,
        prefix=parts.path.rstrip("/"),
    )


def _own_url(data: DataFolder) -> str:
    """Where this machine's own server is."""
    server = read_note(data.root)
    if server is not None and server.alive:
        return server.url
    if not _may_read(data.root / NOTE):
        raise Unauthenticated(
            f"this user may not read {data.root} (permission denied): ATOLL_URL with ATOLL_API_KEY names a server"
        )
    raise ConnectionFailed(f"the server of {data.root} is not running: `atoll up` starts it, ATOLL_URL names another")


def _owner_key(data: DataFolder, host: str) -> str:
    """This machine's own key, for this machine's own server only: no other host gets to see it."""
    path = data.owner_key
    if not is_loopback(host):
        raise Unauthenticated(f"set ATOLL_API_KEY: the key in {path} is only for a server on this machine")
    try:
        with open(path) as file:
            return file.read(_KEY_BYTES_MAX).strip()
    except OSError as error:
        why = error.strerror or str(error)
        raise Unauthenticated(
            f"no API key: ATOLL_API_KEY is not set and {path} cannot be read ({why}); `atoll up` makes one"
        ) from None


def _known_inside(url: str) -> str:
    """In a sandbox that has a capability no key is needed where ATOLL_URL leads: it is known by its connection."""
    inside = bool(os.environ.get("ATOLL_SANDBOX_ID")) and url == os.environ.get("ATOLL_URL")
    return NO_KEY if inside else ""


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_used(data: DataFolder) -> bool:
    """Whether there ever was a server of this folder; where there was none, a key that is given is for the usual
    place."""
    return any(_stamp(path) is not None for path in (data.lock, data.owner_key, data.database))


def _may_read(path: Path) -> bool:
    try:
        with open(path):
            return True
    except OSError as error:
        return not isinstance(error, PermissionError)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
