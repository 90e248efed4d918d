"""The URLs that the server calls on somebody's behalf: their form, and no second way to write a host.

`Outbound` takes them apart here; whoever stores one for later checks it here first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from atoll.domain.addresses import address_of
from atoll.domain.errors import InvalidInput

URL_CHARS_MAX = 2_048
PORTS = {"https": 443, "http": 80}
_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")  # as the last part of a host, some resolvers take it for an address
_CHARS = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class CallUrl:
    """A URL taken apart. `host` is a name in small letters or an address, without brackets."""

    scheme: str
    host: str
    port: int
    target: str  # path and query, as they are sent

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def place(self) -> str:
        """Where it leads, for messages: never the path or the query, which may be secrets."""
        return f"{self.scheme}://{self.authority}"


def call_url(text: str, field: str = "url") -> CallUrl:
    """The parts of an absolute http or https URL. InvalidInput, which names `field`, for everything unusual."""

    def wrong(why: str) -> InvalidInput:
        return InvalidInput(f"{field} {why}", field=field)

    if len(text) > URL_CHARS_MAX:
        raise wrong(f"may have at most {URL_CHARS_MAX} characters")
    if not _CHARS.fullmatch(text) or "\\" in text or "#" in text:
        raise wrong("must be plain ASCII, without spaces, backslashes and #")
    try:
        parts = urlsplit(text)
        port, host = parts.port, (parts.hostname or "")
    except ValueError:
        raise wrong("is no URL") from None
    if parts.scheme not in PORTS or not parts.netloc:
        raise wrong("must begin with https:// and a host")
    if "@" in parts.netloc:
        raise wrong("may not have a user before the host")
    if port is not None and not 0 < port < 65_536:
        raise wrong("has no such port")
    if not _usable(host, bracketed="[" in parts.netloc):
        raise wrong("must have a host name, or an address written in the usual way")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return CallUrl(parts.scheme, host, port or PORTS[parts.scheme], target)


def _usable(host: str, *, bracketed: bool) -> bool:
    address = address_of(host)
    if address is not None:
        return bracketed == (address.version == 6)
    if bracketed or len(host) > 253 or not _NAME.fullmatch(host):
        return False
    return not _NUMBER.fullmatch(host.rpartition(".")[2])
