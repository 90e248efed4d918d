"""Sandboxes: the service that every surface calls: make, look at, end; `.processes`, `.files` and `.ports` act inside.

Every method takes the Principal first and raises Forbidden without the scope it names, and NotFound for an id that
is unknown, malformed, removed or somebody else's: the same message for all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from atoll.domain.errors import Conflict, Forbidden, InvalidInput, QuotaExceeded
from atoll.domain.ids import new_sandbox_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import NetworkMode, Sandbox, SandboxSpec, SandboxState, Usage
from atoll.services.copying import Copying
from atoll.services.deadline import deadline
from atoll.services.egress_quota import EgressQuota
from atoll.services.file_watching import FileWatching
from atoll.services.files import Files
from atoll.services.host_mounts import HostMounts
from atoll.services.identity.group_names import group_meant
from atoll.services.lives import Live
from atoll.services.open_ports import OpenPorts
from atoll.services.processes import Processes
from atoll.services.quotas import credential_of
from atoll.services.reaching import Reaching
from atoll.services.reconciler import quietly
from atoll.services.running import RunningSandboxes
from atoll.services.sandbox_metadata import checked_metadata
from atoll.services.sandbox_names import check_named
from atoll.services.sandbox_parts import SandboxParts
from atoll.services.specs import check_allow, check_name, check_sandbox_spec

LIST_MAX = 10_000


class Sandboxes:
    """Use cases of sandboxes. app.py: construct, `await start()` before serving, `await close()` at the end."""

    def __init__(self, parts: SandboxParts) -> None:
        self._access = access = parts.access
        self._admission = parts.admission
        self._endings = parts.endings
        self._listeners = parts.listeners
        self._makings = parts.makings
        self._suspensions = parts.suspensions
        self._upkeep = parts.upkeep
        self.templates = parts.templates
        self.reconciler = parts.reconciler
        self.metering = parts.metering
        self.gates = access.gates
        self.processes = Processes(access)
        self.files = Files(access)
        self.watches = FileWatching(access)
        self.copying = Copying(access)
        self.ports = parts.ports
        self.open_ports = OpenPorts(access)
        self.reaching = Reaching(access)
        self.host_mounts = HostMounts(access)
        self.running = RunningSandboxes(access, parts.endings)
        self.egress_quota = EgressQuota(access.lives, access.quotas)

    async def start(self) -> None:
        """Reconcile records with the runtime once, re-adopt what runs, then keep watching until `close`."""
        await self.templates.start()
        try:
            await self._upkeep.start()
        except BaseException:
            await self.close()
            raise
        self._access.metrics.set_active(len(self._access.lives))

    async def close(self) -> None:
        """Stop watching; sandboxes go on. A second call does nothing."""
        await self._upkeep.close()
        for live in self._access.lives:
            if live.watcher is not None and not live.busy:
                live.watcher.cancel()
            for follower in live.followers:
                follower.cancel()
        await self._listeners.close_all()
        await self.gates.close_all()
        await self.templates.close()
        await self._access.background.close(self._access.limits.close_s)
        await quietly(self.reconciler.flush_usage(), "usage")

    async def create(
        self,
        principal: Principal,
        spec: SandboxSpec,
        *,
        name: str | None = None,
        namespace: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        group: str | None = None,
        request_id: str | None = None,
    ) -> Sandbox:
        """Make a sandbox; returns it RUNNING (a very short main process may have ended by the next call).

        Its owner is the principal, or that group of theirs (NotFound for any other), which then needs the workspaces
        shared with it. Needs `execute`. InvalidInput names the field (`image`, `command`, `env`, `workDir`,
        `resources.cpuMillis`, `resources.memoryMB`, `resources.timeoutMs`, ..., `network`, `ports`, `setup`, `files`,
        `name`, `workspaces`); a failing setup line is InvalidInput with its log.
        In a `namespace` its name is one of a kind: NameTaken while another of its owner's has it and has not ended.
        QuotaExceeded: `concurrent session limit reached (n/m)`. InsufficientCredit where compute has a price.
        Unsupported, Unavailable, DeadlineExceeded as from the runtime. Conflict when it was killed meanwhile.
        On an error after it was recorded the record stays, FAILED, with the reason.
        When the caller is cancelled the sandbox is made all the same, and killed: nobody knows its id.
        """
        access, limits = self._access, self._access.limits
        owner = principal.owning(Scope.EXECUTE, await group_meant(access.records, principal, group))
        check_sandbox_spec(spec, limits)
        check_name(name, limits)
        check_named(name, namespace)
        spec = await self._admission.admit(principal, owner, spec)
        await self.templates.look(spec)
        plan = self.templates.plan(spec)
        if len(access.lives) >= limits.sandboxes_max:
            raise QuotaExceeded(f"this server holds its maximum of {limits.sandboxes_max} live sandboxes")
        sandbox = Sandbox(
            id=new_sandbox_id(),
            owner=owner,
            spec=plan.spec,
            runtime=access.runtime.name,
            created_at=access.clock(),
            name=name,
            credential=credential_of(principal, owner),
            namespace=namespace,
            metadata=checked_metadata(metadata),
        )
        await access.spending.check_compute(owner, sandbox.credential, spec.maker)
        bounds = await access.quotas.bounds(principal, owner)
        live = access.lives.add_unmade(sandbox)
        live.actor = principal.id
        try:
            return await access.background.finish(
                self._makings.make(live, plan, bounds, request_id), f"make {sandbox.id}"
            )
        except asyncio.CancelledError:
            access.background.spawn(self._abandon(live), f"abandon {sandbox.id}")
            raise

    async def get(self, principal: Principal, sandbox_id: str) -> Sandbox:
        """Needs `read`. Its `usage` is what was last recorded; `usage()` asks."""
        return await self._access.find(principal, sandbox_id, Scope.READ)

    async def acting(self, principal: Principal, sandbox_id: str, scope: Scope) -> Sandbox:
        """It, for who is about to act in it; one that rests stays asleep. Needs `scope`."""
        return await self._access.acting(principal, sandbox_id, scope)

    def hear_of_wakings(self, heard: Callable[[Sandbox], None]) -> None:
        """It is called with each sandbox that was made again."""
        self._suspensions.heard.append(heard)

    async def list(
        self,
        principal: Principal,
        *,
        owner: str | None = None,
        states: Collection[SandboxState] | None = None,
        limit: int = 1000,
    ) -> list[Sandbox]:
        """The principal's own and its groups', or those of one `owner` of these, newest first, removed ones left out.
        Needs `read`."""
        principal.require(Scope.READ)
        limit = max(0, min(limit, LIST_MAX))
        owners = tuple(one for one in principal.owners if owner in (None, one))
        asked = limit if principal.resources is None else LIST_MAX
        found = await self._access.records.list_sandboxes(owner=owners, states=states, limit=asked)
        return [one for one in found if principal.sees(one.owner, one.id)][:limit]

    async def stop(
        self, principal: Principal, sandbox_id: str, *, grace_s: float | None = None, request_id: str | None = None
    ) -> Sandbox:
        """TERM to all its processes, wait up to `grace_s`, KILL, destroy; returns it ended. Needs `execute`.

        Conflict `session already <status>` when it has ended. While another stop is under way: waits for that.
        """
        access = self._access
        sandbox = await access.find(principal, sandbox_id, Scope.EXECUTE)
        if sandbox.state is SandboxState.SUSPENDED:
            return await self._suspensions.end(sandbox, SandboxState.STOPPED, principal.id, request_id)
        live = await access.live(principal, sandbox_id, Scope.EXECUTE)
        grace_s = self._grace_s(grace_s)
        return await access.background.finish(
            self._endings.stop(live, grace_s, principal.id, request_id), f"stop {sandbox_id}"
        )

    async def kill(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> Sandbox:
        """Destroy at once, whatever it is doing (being made, stopping); returns it KILLED. Needs `execute`.

        Conflict `session already <status>` when it has ended.
        """
        access = self._access
        sandbox = await access.find(principal, sandbox_id, Scope.EXECUTE)
        if sandbox.state is SandboxState.SUSPENDED:
            return await self._suspensions.end(sandbox, SandboxState.KILLED, principal.id, request_id)
        live = await access.live(principal, sandbox_id, Scope.EXECUTE)
        return await access.background.finish(self._endings.kill(live, principal.id, request_id), f"kill {sandbox_id}")

    async def remove(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> None:
        """Take an ended one out of lists and lookups, with its log. Needs `execute`. Conflict until it has ended."""
        access = self._access
        sandbox = await access.find(principal, sandbox_id, Scope.EXECUTE)
        if not sandbox.ended:
            raise Conflict(f"session is {sandbox.state}: stop it first")
        live = access.lives.get(sandbox_id) or Live(sandbox)
        event = access.event("sandbox.removed", sandbox, actor=principal.id, request_id=request_id)
        await access.lives.move(live, None, event, removed=True)
        await self._endings.drop_log(sandbox_id)

    async def end(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> None:
        """End it, whatever it does, and forget it: `kill`, and `remove`. Needs `execute`. NotFound."""
        with contextlib.suppress(Conflict):  # it has ended by itself
            await self.kill(principal, sandbox_id, request_id=request_id)
        await self.remove(principal, sandbox_id, request_id=request_id)

    async def keepalive(
        self, principal: Principal, sandbox_id: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Sandbox:
        """Restart its idle and timeout clocks: it now ends `timeout_s` (default: what was asked for last) from now.

        Needs `execute`. Never past `max_age_s`. Conflict when it is not running.
        """
        access = self._access
        live = await access.running(principal, sandbox_id, Scope.EXECUTE)
        spec = live.sandbox.spec
        asked = spec.resources
        if timeout_s is not None:
            asked = replace(asked, timeout_s=timeout_s)
            check_sandbox_spec(replace(spec, resources=asked), access.limits)
        async with access.inside(live, "keeping the sandbox alive", within_s=access.limits.call_s):
            bounds = asked
            if asked.timeout_s is not None:  # the runtime counts from when it was made, the last time
                elapsed_s = (await access.runtime.stats(sandbox_id)).duration_s
                bounds = replace(asked, timeout_s=elapsed_s + asked.timeout_s)
            await access.runtime.set_deadline(sandbox_id, bounds)
            await access.runtime.sidekick(sandbox_id).ping()
        event = access.event("sandbox.kept_alive", live.sandbox, actor=principal.id, request_id=request_id)
        return await access.lives.move(live, None, event, resources=asked)

    async def set_allowed(self, principal: Principal, sandbox_id: str, allow: Iterable[str]) -> Sandbox:
        """Another list of names and addresses for a sandbox of network mode listed; at once: connections that it does
        not have are cut. Needs `execute`. InvalidInput `network.allow`; Conflict for one of another mode; Forbidden for
        the sandbox's own programs, which it holds in."""
        access = self._access
        if principal.credential == sandbox_id:
            raise Forbidden("the programs of a sandbox do not change its own network")
        listed = tuple(allow)
        check_allow(listed, access.limits)
        live = await access.unended(principal, sandbox_id, Scope.EXECUTE)
        if live.sandbox.spec.network is not NetworkMode.LISTED:
            raise Conflict(f"session has network {live.sandbox.spec.network}: only one made with a list can change it")
        event = access.event("sandbox.network_changed", live.sandbox, actor=principal.id, allow=list(listed))
        sandbox = await access.lives.move(live, None, event, allow=listed)
        self.gates.servant.changed(live)
        return sandbox

    async def pause(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> Sandbox:
        """Freeze it. Needs `execute`. Unsupported by some runtimes; Conflict when it is not running."""
        access = self._access
        live = await access.unended(principal, sandbox_id, Scope.EXECUTE)
        async with access.inside(live, "pausing", within_s=access.limits.call_s):
            await access.runtime.pause(sandbox_id)
        live.paused = True
        event = access.event("sandbox.paused", live.sandbox, actor=principal.id, request_id=request_id)
        return await access.lives.move(live, None, event)

    async def suspend(
        self, principal: Principal, sandbox_id: str, *, grace_s: float | None = None, request_id: str | None = None
    ) -> Sandbox:
        """Stop it and keep what it takes to make it again, which its next use does. Needs `execute`.

        Conflict when it does not run, or has no workspace that it can write to.
        """
        access = self._access
        live = await access.live(principal, sandbox_id, Scope.EXECUTE)
        return await access.background.finish(
            self._suspensions.suspend(live, self._grace_s(grace_s), principal.id, request_id), f"suspend {sandbox_id}"
        )

    async def resume(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> Sandbox:
        """Thaw one that is frozen, wake one that is suspended, no error when it just runs. Needs `execute`.

        One that failed because it was lost (`host_restarted`, `lost`) and has a workspace is made again too.
        """
        access = self._access
        sandbox = await access.find(principal, sandbox_id, Scope.EXECUTE)
        if sandbox.may_wake:
            return (await self._suspensions.wake(sandbox, actor=principal.id)).sandbox
        live = await access.unended(principal, sandbox_id, Scope.EXECUTE)
        async with access.inside(live, "resuming", within_s=access.limits.call_s):
            await access.runtime.resume(sandbox_id)
        live.paused = False
        event = access.event("sandbox.resumed", live.sandbox, actor=principal.id, request_id=request_id)
        return await access.lives.move(live, None, event)

    def hear_of_ends(self, heard: Callable[[Sandbox], None]) -> None:
        """It is called with each sandbox of which nothing is left, before anybody is told; those that may wake too."""
        self._endings.heard.append(heard)

    def is_paused(self, sandbox: Sandbox) -> bool:
        """Whether it is frozen, as far as this server knows; for sandboxes as `get` and `list` gave them."""
        live = self._access.lives.get(sandbox.id)
        return live is not None and live.paused and live.sandbox.live

    def _grace_s(self, asked_s: float | None) -> float:
        limits = self._access.limits
        grace_s = limits.stop_grace_s if asked_s is None else asked_s
        if not 0 <= grace_s <= limits.stop_grace_s_max:
            raise InvalidInput(f"grace must be within 0..{limits.stop_grace_s_max:g} s", field="grace")
        return grace_s

    async def usage(self, principal: Principal, sandbox_id: str) -> Usage:
        """What it used until now, or in all when it has ended. Needs `read`."""
        access = self._access
        sandbox = await access.find(principal, sandbox_id, Scope.READ)
        live = access.lives.get(sandbox_id)
        if live is None:
            return sandbox.usage
        return live.usage(await self._endings.measure(live) if sandbox.live else None)

    async def usages(self, principal: Principal, sandboxes: Iterable[Sandbox]) -> dict[str, Usage]:
        """What each that the principal sees used until now, by id; sandboxes as `list` gave them. Needs `read`."""
        principal.require(Scope.READ)
        lives = self._access.lives
        found = {one.id: one.usage for one in sandboxes if principal.sees(one.owner, one.id)}
        live = [known for known in map(lives.get, found) if known is not None and known.sandbox.live]
        measured = await asyncio.gather(*(self._endings.measure(one) for one in live))
        return found | {one.sandbox.id: one.usage(used) for one, used in zip(live, measured, strict=True)}

    async def _abandon(self, live: Live) -> None:
        """Kill what was made for a caller that went away."""
        limits = self._access.limits
        async with deadline(limits.build_s + limits.make_s + limits.destroy_s, "the abandoned making"):
            await live.made.wait()
        with contextlib.suppress(Conflict):
            await self._endings.kill(live, "system", None, reason="abandoned")
