"""Secrets: made, listed, rotated, deleted, and given to processes; there is no way to read a value back.

Surfaces call it with the Principal first; the sandbox services give with it, see `giving.py`. A value stands in no
record, event, log or error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from atoll.domain.egress import clean_name
from atoll.domain.errors import Conflict, InvalidInput, NotFound, StaleVersion, TooLarge
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.secret import SECRET_ID, SECRET_NAME, Secret
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.group_names import group_meant
from atoll.services.secret_values import SecretValues
from atoll.vaults.base import Vault

VALUE_BYTES_MAX = 64 * 2**10
SECRETS_PER_OWNER = 1_000
LISTED_MAX = 1_000
HOSTS_MAX = 32
DESCRIPTION_CHARS_MAX = 1_000
REF_CHARS_SHOWN = 256
CHANGE_ATTEMPTS = 5


class NoSecret(NotFound):
    """There is none of that name or id, or it is somebody else's."""

    def __init__(self, ref: str = "") -> None:
        super().__init__("secret not found" + (f": {ref[:REF_CHARS_SHOWN]!r}" if ref else ""))


class Secrets:
    """Use cases of secrets. A secret is called by its id, by its name where it is one's own, or as `GROUP/NAME`; GROUP
    is the group's id or name, as it is wherever a group is asked for."""

    def __init__(self, records: Records, vault: Vault, clock: Clock = utc_now) -> None:
        self._records = records
        self._clock = clock
        self.values = SecretValues(vault)

    async def create(
        self,
        principal: Principal,
        name: str,
        value: bytes,
        *,
        group: str | None = None,
        hosts: Sequence[str] = (),
        description: str = "",
    ) -> Secret:
        """Keep a value under a name, as one's own or the group's. Needs `write`.

        InvalidInput names the field (`name`, `value`, `hosts`, `description`); NotFound for a group that it does not
        belong to; Conflict when there is one of that name; QuotaExceeded.
        """
        owner = principal.owning(Scope.WRITE, await group_meant(self._records, principal, group))
        if not SECRET_NAME.fullmatch(name):
            raise InvalidInput(
                "name must be letters, digits and underscores, at most 128, and not begin with a digit", field="name"
            )
        _check_value(value)
        secret = Secret(
            id=new_id("sec"),
            owner=owner,
            name=name,
            vault="",
            key=b"",
            sealed=b"",
            created_at=self._clock(),
            hosts=_hosts(hosts),
            description=_description(description),
        )
        secret = await self.values.seal(secret, value)
        event = self._event("secret.created", secret, principal, hosts=list(secret.hosts))
        await self._records.add_secret(secret, event, quota=SECRETS_PER_OWNER)
        return secret

    async def list(
        self, principal: Principal, *, group: str | None = None, after: str | None = None, limit: int = LISTED_MAX
    ) -> list[Secret]:
        """One's own and one's groups', or the group's alone, by name; behind `after`, the `place` of the last that was
        listed before. Needs `read`."""
        principal.require(Scope.READ)
        owners = principal.owners if group is None else (await self._owner(principal, group),)
        found = await self._records.list_secrets(
            owners=owners, within=principal.resources, after=None if after is None else _place(after), limit=limit
        )
        return [one for one in found if principal.sees(one.owner, one.id)]

    async def get(self, principal: Principal, ref: str, *, group: str | None = None) -> Secret:
        """Everything but its value. Needs `read`."""
        return await self.find(principal, ref, Scope.READ, group=group)

    async def change(
        self,
        principal: Principal,
        ref: str,
        *,
        group: str | None = None,
        value: bytes | None = None,
        hosts: Sequence[str] | None = None,
        description: str | None = None,
    ) -> Secret:
        """Rotate it (a new value: the old one is gone) or change what is said of it. Needs `write`."""
        if value is not None:
            _check_value(value)
        for _ in range(CHANGE_ATTEMPTS):
            before = await self.find(principal, ref, Scope.WRITE, group=group)
            after = replace(
                before,
                hosts=before.hosts if hosts is None else _hosts(hosts),
                description=before.description if description is None else _description(description),
            )
            if value is not None:
                after = replace(after, revision=before.revision + 1, rotated_at=self._clock())
                after = await self.values.seal(after, value)
            elif after == before:
                return before
            action = "secret.changed" if value is None else "secret.rotated"
            event = self._event(action, after, principal, hosts=list(after.hosts))
            try:
                return await self._records.swap_secret(after, event)
            except StaleVersion:
                continue
            except NotFound:
                raise NoSecret from None
        raise Conflict("the secret keeps changing: try again")

    async def delete(self, principal: Principal, ref: str, *, group: str | None = None) -> None:
        """Forget it with its value. Needs `write`. Processes that have it keep it."""
        for _ in range(CHANGE_ATTEMPTS):
            secret = await self.find(principal, ref, Scope.WRITE, group=group)
            try:
                await self._records.delete_secret(secret, self._event("secret.deleted", secret, principal))
            except StaleVersion:
                continue
            except NotFound:
                raise NoSecret from None
            return
        raise Conflict("the secret keeps changing: try again")

    async def find(self, principal: Principal, ref: str, scope: Scope, *, group: str | None = None) -> Secret:
        """The secret that the principal calls so. Forbidden without the scope, in its group too; NoSecret."""
        principal.require(scope)
        if SECRET_ID.fullmatch(ref):
            secret = await self._records.get_secret(ref)
        else:
            within, slash, name = ref.rpartition("/")
            owner = await self._owner(principal, within if slash else group, wrong=NoSecret)
            secret = await self._records.find_secret(owner, name) if SECRET_NAME.fullmatch(name) else None
        if secret is None or not principal.sees(secret.owner, secret.id):
            raise NoSecret
        principal.require(scope, secret.owner)
        return secret

    async def _owner(self, principal: Principal, group: str | None, *, wrong: type[NotFound] = NotFound) -> str:
        """Whose: the principal's, or those of a group that it belongs to."""
        group = await group_meant(self._records, principal, group)
        if group is None or group == principal.id:
            return principal.id
        if group not in principal.groups:
            raise wrong() if wrong is NoSecret else NotFound("group not found")
        return group

    def _event(self, action: str, secret: Secret, principal: Principal, **detail: object) -> Event:
        told: dict[str, object] = {"name": secret.name, "revision": secret.revision, **detail}
        return Event(action, secret.id, tenant=secret.owner, actor=principal.id, detail=told, at=self._clock())


def place(secret: Secret) -> str:
    """Where it stands in a list, whatever becomes of it."""
    return f"{secret.name}:{secret.id}"


def _place(text: str) -> tuple[str, str]:
    name, _, secret_id = text.partition(":")
    if not SECRET_NAME.fullmatch(name) or not SECRET_ID.fullmatch(secret_id):
        raise InvalidInput("after must be what an answer said is next", field="after")
    return name, secret_id


def _check_value(value: bytes) -> None:
    if not value:
        raise InvalidInput("value must not be empty", field="value")
    if len(value) > VALUE_BYTES_MAX:
        raise TooLarge(f"value must be at most {VALUE_BYTES_MAX} bytes")


def _hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    if len(hosts) > HOSTS_MAX:
        raise InvalidInput(f"hosts must be at most {HOSTS_MAX}", field="hosts")
    return tuple(dict.fromkeys(map(_host, hosts)))


def _host(host: str) -> str:
    below = "*." if host.startswith("*.") else ""
    name = clean_name(host.removeprefix("*."))
    if name is None:
        raise InvalidInput("hosts must be names such as api.example.org or *.example.org", field="hosts")
    return below + name


def _description(text: str) -> str:
    if len(text) > DESCRIPTION_CHARS_MAX or "\0" in text:
        raise InvalidInput(f"description must be at most {DESCRIPTION_CHARS_MAX} characters", field="description")
    return text
