"""Secret giving: secrets into the environment or the files of processes; the sandbox services reach it as `Giving`.

Whoever else is in a sandbox can read what its programs have: so a sandbox of a group is given that group's secrets
only, and one of a principal's own what that principal may use.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Sequence
from contextlib import suppress

from atoll.domain.brokering import TRUST_FILE, Substitution, placeholder
from atoll.domain.egress import allow_list
from atoll.domain.errors import Conflict, InvalidInput, Unsupported
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.domain.secret import FILES_FOLDER, SECRET_NAME, Given, GivenAs, Secret, SecretUse
from atoll.records.base import Records
from atoll.services.authorities import Authorities
from atoll.services.secret_values import opened
from atoll.services.secrets import NoSecret, Secrets

USES_MAX = 64  # secrets of one sandbox, or of one process
FILE_BYTES_MAX = 2**20  # of all files of one request
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class SecretGiving:
    """See `Giving` for what each method does."""

    def __init__(self, records: Records, secrets: Secrets, authorities: Authorities | None = None) -> None:
        """`authorities` are for brokered secrets; without them there is no gateway for those."""
        self._records = records
        self._secrets = secrets
        self._authorities = authorities

    async def resolve(
        self,
        principal: Principal,
        uses: Sequence[SecretUse],
        sandbox_owner: str,
        *,
        allow: Sequence[str] | None = None,
    ) -> tuple[SecretUse, ...]:
        if len(uses) > USES_MAX:
            raise _bad(f"secrets must be at most {USES_MAX}")
        resolved: list[SecretUse] = []
        for use in uses:
            try:
                secret = await self._secrets.find(principal, use.secret, Scope.EXECUTE)
            except NoSecret:
                raise NoSecret(use.secret) from None  # of several, which one
            if secret.owner != sandbox_owner and sandbox_owner != principal.id:
                raise _bad(f"secrets: a sandbox of a group is given that group's secrets only, not {secret.name}")
            if allow is not None and use.given_as is GivenAs.BROKER:
                _check_listed(secret, allow)
            resolved.append(self._resolved(use, secret))
        targets = [use.target for use in resolved]
        for target in targets:
            if targets.count(target) > 1:
                raise _bad(f"secrets: {target} is given more than once")
        return tuple(resolved)

    async def give(self, uses: Sequence[SecretUse], sandbox_owner: str, sandbox_id: str) -> Given:
        given = Given()
        if not uses:
            return given
        found = [(use, await self._usable(use, sandbox_owner)) for use in uses]
        plain = [(use, secret) for use, secret in found if use.given_as is not GivenAs.BROKER]
        brokered = [(use, secret) for use, secret in found if use.given_as is GivenAs.BROKER]
        given.env.update({use.target: placeholder(sandbox_id, secret.id) for use, secret in brokered})
        values = await opened(self._secrets.values, [secret for _, secret in plain])
        for (use, secret), value in zip(plain, values, strict=True):
            if use.given_as is GivenAs.FILE:
                given.files[use.target] = value
            else:
                given.env[use.target] = _as_text(secret, value)
        if sum(map(len, given.files.values())) > FILE_BYTES_MAX:
            raise _bad(f"secrets: files of more than {FILE_BYTES_MAX} bytes in all")
        if brokered and self._authorities is not None:
            given.files[TRUST_FILE] = await asyncio.to_thread(self._authorities.bundle, sandbox_id)
        return given

    async def brokered(self, sandbox: Sandbox, host: str) -> tuple[Substitution, ...]:
        uses = [use for use in sandbox.spec.secrets if use.given_as is GivenAs.BROKER]
        found = [await self._usable(use, sandbox.owner) for use in uses]
        secrets = [secret for secret in found if allow_list(secret.hosts).allows_name(host)]
        values = await opened(self._secrets.values, secrets)
        return tuple(
            Substitution(placeholder(sandbox.id, secret.id).encode(), value)
            for secret, value in zip(secrets, values, strict=True)
        )

    async def values(self, sandbox: Sandbox) -> tuple[bytes, ...]:
        found: list[Secret] = []
        for use in sandbox.spec.secrets:
            with suppress(Conflict):
                found.append(await self._usable(use, sandbox.owner))
        return tuple(await opened(self._secrets.values, found))

    def _resolved(self, use: SecretUse, secret: Secret) -> SecretUse:
        if use.given_as is GivenAs.BROKER:
            if self._authorities is None:
                raise Unsupported("brokered secrets need an egress gateway, which this server does not have")
            if not secret.hosts:
                raise _bad(f"secrets: {secret.name} names no hosts that a brokered secret could be for")
        return _resolved(use, secret)

    async def _usable(self, use: SecretUse, sandbox_owner: str) -> Secret:
        """As it is now, if its sandbox's owner still may use it."""
        secret = await self._records.get_secret(use.secret)
        if secret is not None and secret.owner != sandbox_owner:
            member = await self._records.get_member(secret.owner, sandbox_owner)
            if member is None or Scope.EXECUTE not in member.role.scopes:
                secret = None
        if secret is None:
            raise Conflict(f"the secret for {use.target} is gone, or may not be used here any more")
        return secret


def _check_listed(secret: Secret, allow: Sequence[str]) -> None:
    if secret.hosts and not allow_list(allow).meets(allow_list(secret.hosts)):
        raise _bad(
            f"secrets: {secret.name} is for {', '.join(secret.hosts)}, and no such host is on the network's list "
            f"({', '.join(allow) or 'it is empty'})"
        )


def _resolved(use: SecretUse, secret: Secret) -> SecretUse:
    if use.given_as is GivenAs.FILE:
        target = use.target or f"{FILES_FOLDER}/{secret.name}"
        folder, name = posixpath.split(target)
        if folder != FILES_FOLDER or not _FILE_NAME.fullmatch(name):
            raise _bad(f"secrets: path must be a file in {FILES_FOLDER}, of letters, digits, dots, - and _")
    else:
        target = use.target or secret.name
        if not SECRET_NAME.fullmatch(target):
            raise _bad("secrets: env must be letters, digits and underscores, and not begin with a digit")
    return SecretUse(secret.id, use.given_as, target)


def _as_text(secret: Secret, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise _bad(f"secrets: {secret.name} cannot be a variable, it is no text: give it as a file")
    return text


def _bad(message: str) -> InvalidInput:
    return InvalidInput(message, field="secrets")
