# Made by scripts/unasync.py from ../_async/secrets.py: change that file, not this one.
"""Secrets: values that the server keeps and gives to processes; they go in here and never come out."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from atoll.domain.errors import NotFound
from atoll.sdk._sync.api import Api, connect
from atoll.sdk.arguments import texts
from atoll.sdk.requests import target_of
from atoll.sdk.secret_values import SecretInfo, secret_of

BASE = "/api/secrets"


class Secrets:
    """The secrets of this credential, or with `group` those of a group."""

    def __init__(self, *, group: str | None = None, url: str | None = None, api_key: str | None = None) -> None:
        self._api: Api = connect(url, api_key)
        self._group = group

    def set(
        self, name: str, value: str | bytes, *, hosts: Sequence[str] | None = None, description: str | None = None
    ) -> SecretInfo:
        """Keep a value under that name; one that is there gets a new value. `hosts` are those that a brokered one may
        be sent to."""
        body = _said(hosts, description)
        if isinstance(value, str):
            body["value"] = value
        else:
            body |= {"value": b64encode(value).decode(), "encoding": "base64"}
        try:
            target = target_of(BASE, name, group_id=self._group)
            return secret_of(self._api.call("PUT", target, body))
        except NotFound:
            made = {"name": name, **body, **({"group_id": self._group} if self._group else {})}
            return secret_of(self._api.call("POST", BASE, made))

    def change(self, name: str, *, hosts: Sequence[str] | None = None, description: str | None = None) -> SecretInfo:
        """Another list of hosts, or another description; what is None stays, and so does the value. NotFound."""
        target = target_of(BASE, name, group_id=self._group)
        return secret_of(self._api.call("PATCH", target, _said(hosts, description)))

    def get(self, name: str) -> SecretInfo:
        """What is known of one, by its name or id; NotFound."""
        return secret_of(self._api.call("GET", target_of(BASE, name, group_id=self._group)))

    def list(self) -> Sequence[SecretInfo]:
        """One's own and one's groups', or the group's, by name."""
        found: Sequence[SecretInfo] = ()
        following: str | None = None
        while True:
            answer = self._api.call("GET", target_of(BASE, group_id=self._group, after=following))
            found = [*found, *map(secret_of, answer["secrets"])]
            following = answer.get("next")
            if following is None:
                return found

    def delete(self, name: str) -> None:
        """Forget it; NotFound. Processes that have it keep it."""
        self._api.call("DELETE", target_of(BASE, name, group_id=self._group))


def _said(hosts: Sequence[str] | None, description: str | None) -> dict[str, Any]:
    said = {"hosts": texts(hosts, "hosts", "a list of host names"), "description": description}
    return {key: found for key, found in said.items() if found is not None}
