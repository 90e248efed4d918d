"""Admission: what somebody asks for, as the sandbox that they get: checked, bounded, with what they may mount and read.

Sandboxes asks before anything is made or recorded.
"""

from __future__ import annotations

from dataclasses import replace

from atoll.domain.errors import InvalidInput, Unsupported
from atoll.domain.ids import SANDBOX_ID
from atoll.domain.principal import Principal
from atoll.domain.sandbox import NetworkMode, Resources, SandboxSpec
from atoll.domain.secret import GivenAs
from atoll.runtimes.base import Capability
from atoll.services.access import Access
from atoll.services.identity.connected import budget_of, grant_of
from atoll.services.identity.reach import seen
from atoll.services.workspaces.access import WorkspaceAccess


class Admission:
    """Refusals are those of `Sandboxes.create`, which name the field."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def admit(self, principal: Principal, owner: str, spec: SandboxSpec) -> SandboxSpec:
        """What is to be made of a checked one for the owner, who is the principal or a group of theirs."""
        access = self._access
        spec = replace(spec, resources=self._bounded(spec))
        spec = replace(spec, maker=principal.credential if SANDBOX_ID.match(principal.credential) else "")
        access.runtime.check_network(spec.network)
        spec = replace(spec, workspaces=await access.mounting.resolve(principal, spec.workspaces, owner))
        spec = await self._given(principal, owner, spec)
        spec = await access.quotas.shaped(principal, owner, spec)
        return await self._granted(principal, spec)

    def _bounded(self, spec: SandboxSpec) -> Resources:
        """With the ends that this server sets where nobody asks for another."""
        limits, asked = self._access.limits, spec.resources
        if asked.max_age_s is None and limits.max_age_s_max is not None:
            asked = replace(asked, max_age_s=limits.max_age_s_max)
        if limits.idle_suspend_s is not None and spec.workspaces and asked.idle_s is None:
            asked = replace(asked, idle_s=limits.idle_suspend_s)
        return asked

    async def _given(self, principal: Principal, owner: str, spec: SandboxSpec) -> SandboxSpec:
        """With the secrets that it names."""
        if not spec.secrets:
            return spec
        allow = spec.allow if spec.network is NetworkMode.LISTED else None
        secrets = await self._access.giving.resolve(principal, spec.secrets, owner, allow=allow)
        brokered = any(use.given_as is GivenAs.BROKER for use in secrets)
        if brokered and spec.network is not NetworkMode.LISTED:
            message = "secrets: brokered ones need a network that is a list, with their hosts on it"
            raise InvalidInput(message, field="secrets")
        return replace(spec, secrets=secrets)

    async def _granted(self, principal: Principal, spec: SandboxSpec) -> SandboxSpec:
        """With the capability that it asks for, as far as the principal's own reach goes."""
        access, asked = self._access, spec.capability
        if asked is None:
            return spec
        if Capability.GATES not in access.runtime.capabilities:
            raise Unsupported(f"the {access.runtime.name} runtime gives no capabilities to sandboxes")
        grant = grant_of(principal, asked, await budget_of(access.records, principal))
        if asked.resources is not None:
            reached = await seen(
                access.records, WorkspaceAccess(access.records), principal, asked.resources, "capability"
            )
            grant = replace(grant, resources=reached)
        return replace(spec, capability=grant)
