"""Ports of their own for single services, as the systems before Atoll gave each one; the settings' tree holds them.

The composition root makes an application for each that has an address, and `serve` listens there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator

from atoll.settings.section import Section

_PORT_MAX = 65_535


class Address(NamedTuple):
    """Where something listens, and the setting that says so."""

    setting: str
    host: str
    port: int


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _checked(value: str | None) -> str | None:
    if not value:
        return None
    split(value, "")
    return value


Where = Annotated[str | None, BeforeValidator(_text), AfterValidator(_checked)]


class ListenSettings(Section):
    """A port for one service alone, beside the one port that serves everything: `8000`, at the address of
    `server.host`, or `HOST:PORT`, or `[IPv6]:PORT`; 0 takes a free port. Without one the service has no port of its
    own. docs/listeners.md says what each serves."""

    sandbox: Where = None
    """The Sandbox API; in seed 002's system 8000."""
    preview: Where = None
    """The preview router; there 8001."""
    snapshot: Where = None
    """The Snapshot API; there 8002."""
    agent: Where = None
    """The Agent Workspace API with the marketplace; there 8003."""
    testbase: Where = None
    """Testbase Cloud; in seed 000's system 8080."""
    execbox: Where = None
    """execbox-cloud; in seed 003's system 8080."""
    compute: Where = None
    """ComputeSDK's API; in seed 004's system a service of its own on 8080."""
    gateway: Where = None
    """ComputeSDK's gateway, with its API behind it as there."""

    def addresses(self, host: str) -> Iterator[Address]:
        """Where single services listen; `host` where they say none."""
        for name in type(self).model_fields:
            text: str | None = getattr(self, name)
            if text is not None:
                own, port = split(text, host)
                yield Address(f"listen.{name}", own, port)


def split(text: str, host: str) -> tuple[str, int]:
    """The host, `host` where there is none, and the port; ValueError for anything else."""
    before, colon, digits = text.rpartition(":")
    before = before.removeprefix("[").removesuffix("]") if before.startswith("[") else before
    if colon and (not before or (":" in before and not text.startswith("["))):
        raise ValueError("it is PORT, HOST:PORT or [IPv6]:PORT")
    if not (digits.isascii() and digits.isdigit() and int(digits) <= _PORT_MAX):
        raise ValueError(f"it ends with a port between 0 and {_PORT_MAX}")
    return before or host, int(digits)


def check_apart(addresses: Iterable[Address]) -> None:
    """ValueError where two would listen at one place."""
    seen: list[Address] = []
    for one in addresses:
        for other in seen:
            if one.port and one.port == other.port and _overlap(one.host, other.host):
                raise ValueError(f"{one.setting} and {other.setting} are both port {one.port}: give one another")
        seen.append(one)


def _overlap(one: str, other: str) -> bool:
    return one == other or any(_is_any(host) for host in (one, other))


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
