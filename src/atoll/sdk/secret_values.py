"""Secrets as the SDK speaks of them: what a call gives to a process, and what the server says about one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from atoll.domain.errors import InvalidInput
from atoll.sdk.arguments import several
from atoll.sdk.values import moment_of

WAYS = ("env", "file", "broker")
_RIGHT = "a list of secrets' names or SecretUses"


@dataclass(frozen=True, slots=True)
class SecretUse:
    """One secret for a process: `as_` a variable (`env`), a `file` at `path`, or a variable with a placeholder that
    only requests to the secret's hosts turn into it (`broker`). A group's is called `GROUP/NAME`."""

    name: str
    as_: str = "env"
    env: str | None = None  # the variable; None: of the secret's name
    path: str | None = None  # the file, in /run/secrets; None: one of the secret's name


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What the server says about a secret; nobody can read its value back. `version` counts the values."""

    id: str
    name: str
    owner: str = ""
    group: str | None = None
    version: int = 1
    hosts: tuple[str, ...] = ()
    description: str = ""
    created_at: datetime | None = None
    rotated_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)


def secret_of(value: Mapping[str, Any]) -> SecretInfo:
    return SecretInfo(
        id=str(value["id"]),
        name=str(value["name"]),
        owner=str(value.get("owner_id") or ""),
        group=value.get("group_id"),
        version=int(value.get("version") or 1),
        hosts=tuple(value.get("hosts") or ()),
        description=str(value.get("description") or ""),
        created_at=moment_of(value.get("created_at")),
        rotated_at=moment_of(value.get("rotated_at")),
        raw=value,
    )


def secret_items(secrets: Sequence[SecretUse | str] | None) -> list[Any]:
    """As the bodies of requests have them."""
    return [_item(_checked(one)) for one in several(secrets, "secrets", _RIGHT) or ()]


def secret_words(secrets: Sequence[SecretUse | str] | None) -> list[str]:
    """As the query of a stream has them."""
    words: list[str] = []
    for one in several(secrets, "secrets", _RIGHT) or ():
        use = _checked(one)
        target = (use.path or f"/run/secrets/{use.name.rpartition('/')[2]}") if use.as_ == "file" else use.env
        name = f"broker:{use.name}" if use.as_ == "broker" else use.name
        words.append(f"{name}={target}" if target else name)
    return words


def _checked(one: object) -> SecretUse:
    use = SecretUse(one) if isinstance(one, str) else one
    if not isinstance(use, SecretUse) or not isinstance(use.name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"secrets must be {_RIGHT}, not {one!r}", field="secrets")
    if use.as_ not in WAYS:
        raise InvalidInput(f"secrets: as_ must be one of {', '.join(WAYS)}, not {use.as_!r}", field="secrets")
    return use


def _item(use: SecretUse) -> dict[str, str]:
    item = {"name": use.name, "as": use.as_, "env": use.env, "path": use.path}
    return {name: value for name, value in item.items() if value is not None}
