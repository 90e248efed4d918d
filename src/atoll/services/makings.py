"""Makings: how a sandbox comes to be: recorded first, then made, then recorded as running; undone when a step fails.

Sandboxes calls it. A delete that comes in between wins: its end is stored, and the making takes back what it made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import structlog

from atoll.domain import crash
from atoll.domain.brokering import TRUST_FILE, TRUST_VARIABLES
from atoll.domain.errors import AtollError, Conflict, Internal, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.quota import Bound
from atoll.domain.sandbox import Sandbox, SandboxSpec, SandboxState
from atoll.runtimes.base import Handle
from atoll.services.access import Access
from atoll.services.deadline import deadline
from atoll.services.endings import Endings
from atoll.services.listeners import Listeners
from atoll.services.lives import Live
from atoll.services.specs import check_given_env
from atoll.services.templates import Plan, Templates
from atoll.telemetry.spans import TRACEPARENT, note, spanned, with_traceparent

_log = structlog.get_logger()

REASON_CHARS = 4_000


class Makings:
    """`adopt` starts watching a sandbox that runs."""

    def __init__(
        self,
        access: Access,
        endings: Endings,
        templates: Templates,
        listeners: Listeners,
        adopt: Callable[[Live, Handle], Awaitable[None]],
    ) -> None:
        self._access = access
        self._endings = endings
        self._templates = templates
        self._listeners = listeners
        self._adopt = adopt

    @spanned("sandbox.create")
    async def make(self, live: Live, plan: Plan, bounds: Sequence[Bound], request_id: str | None) -> Sandbox:
        """From nothing to RUNNING: two writes and one `runtime.make` when no layer has to be built."""
        access, owner = self._access, live.sandbox.owner
        # A tenant's secrets may stand in the environment. Only the runtime needs it, and only now: no record has it.
        # Those that can be suspended keep it sealed.
        sealed = ""
        if live.sandbox.may_rest and plan.spec.env:
            sealed = await access.mounting.seal_env(live.sandbox.id, plan.spec.env, plan.spec.workspaces)
        live.sandbox = replace(live.sandbox, spec=replace(plan.spec, env={}, sealed_env=sealed))
        with live.held():
            try:
                secrets = [use.secret for use in plan.spec.secrets] or None
                event = access.event(
                    "sandbox.created", live.sandbox, actor=live.actor or owner, request_id=request_id, secrets=secrets
                )
                used = await access.records.add_sandbox(live.sandbox, event, bounds=bounds)
            except QuotaExceeded as error:
                access.lives.forget(live)
                await access.quotas.refused(error, owner, live.actor or owner)
                raise
            except BaseException:
                access.lives.forget(live)
                raise
            await access.quotas.used(used, owner, live.actor or owner)
            try:
                return await self._made(live, plan, request_id)
            except Exception as error:
                ended = None if live.sandbox.live else live.sandbox.state
                await self._undo(live, error, request_id)
                if ended is not None:  # somebody's kill came in between: that is why the making failed
                    raise Conflict(f"session already {ended}") from None
                if isinstance(error, AtollError):
                    raise
                _log.exception("sandbox.make_failed", sandbox_id=live.sandbox.id)
                raise Internal("the sandbox could not be made") from error

    async def _made(self, live: Live, plan: Plan, request_id: str | None) -> Sandbox:
        access, sandbox = self._access, live.sandbox
        crash.point("sandboxes.create.recorded")
        if plan.tag is not None:
            event = access.event("sandbox.building", sandbox, actor=live.actor or sandbox.owner, tag=plan.tag)
            await self._move(live, SandboxState.BUILDING, event)
            await self._templates.build(plan)
            access.background.spawn(self._prune_layers(), "prune layers")
        return await self._start(live, plan.spec, "sandbox.started", request_id)

    @spanned("sandbox.resume")
    async def remake(self, live: Live, request_id: str | None = None) -> Sandbox:
        """A sandbox that is RESUMING, from its record, to RUNNING. What an error leaves is for the caller to undo."""
        spec = live.sandbox.spec
        if spec.sealed_env:
            env = await self._access.mounting.open_env(live.sandbox.id, spec.sealed_env, spec.workspaces)
            spec = replace(spec, env=env)
        return await self._start(live, spec, "sandbox.resumed", request_id)

    async def _start(self, live: Live, spec: SandboxSpec, action: str, request_id: str | None) -> Sandbox:
        """Make it, with `spec` that still has its environment, and record it as RUNNING."""
        access, sandbox, began = self._access, live.sandbox, perf_counter()
        note("atoll.sandbox_id", sandbox.id)
        mounts = await access.mounting.prepare(sandbox.id, sandbox.owner, spec.workspaces)
        spec = replace(spec, workspaces=mounts)
        if spec.secrets:
            spec = await self._given(spec, sandbox)
        async with deadline(access.limits.make_s, "making the sandbox"):
            handle = await (
                self._make_running(sandbox, spec) if spec.command else access.runtime.make(sandbox.id, spec)
            )
        crash.point("sandboxes.create.made")
        recorded = replace(sandbox.spec, workspaces=spec.workspaces)
        if spec.workspaces:
            await access.mounting.made(sandbox.id)
        if spec.ports and not self._listeners.has(sandbox.id):
            recorded = replace(recorded, ports=await self._listeners.open(sandbox, spec.ports))
        changes: dict[str, Any] = {"handle": handle, "reason": None}
        if recorded != sandbox.spec:
            changes["spec"] = recorded
        event = access.event(action, sandbox, actor=live.actor or sandbox.owner, request_id=request_id)
        await self._move(live, SandboxState.RUNNING, event, **changes)
        crash.point("sandboxes.create.running")
        if spec.command:
            access.metrics.exec_started(sandbox.id, spec.command)  # before its end can be heard of
        await self._adopt(live, handle)
        live.made.set()
        access.metrics.sandbox_created(perf_counter() - began)
        access.metrics.set_active(len(access.lives))
        return live.sandbox

    @spanned("process.start")
    async def _make_running(self, sandbox: Sandbox, spec: SandboxSpec) -> Handle:
        """With its main command, which starts with it and finds its span as those do that are run later."""
        note("atoll.sandbox_id", sandbox.id)
        if TRACEPARENT not in spec.env:  # its own word stays
            spec = replace(spec, given=replace(spec.given, env=with_traceparent(spec.given.env)))
        return await self._access.runtime.make(sandbox.id, spec)

    async def _given(self, spec: SandboxSpec, sandbox: Sandbox) -> SandboxSpec:
        """With the present values of its secrets: for its main process alone; without one, for its commands."""
        access = self._access
        async with deadline(access.limits.call_s, "opening the secrets"):
            given = await access.giving.give(spec.secrets, sandbox.owner, sandbox.id)
        check_given_env(spec.env, given.env, access.limits)
        if TRUST_FILE in given.files:
            spec = replace(spec, env={**dict.fromkeys(TRUST_VARIABLES, TRUST_FILE), **spec.env})
        if spec.command:
            return replace(spec, given=given)
        return replace(spec, env={**spec.env, **given.env}, given=replace(given, env={}))

    async def _prune_layers(self) -> None:
        await self._templates.prune(await self._access.layers_in_use())

    async def _move(self, live: Live, state: SandboxState, event: Event, **changes: Any) -> None:
        try:
            await self._access.lives.move(live, state, event, **changes)
        except Conflict:
            if live.sandbox.live:
                raise
            raise Conflict(f"session already {live.sandbox.state}") from None

    async def _undo(self, live: Live, error: Exception, request_id: str | None) -> None:
        """Nothing of it remains but a record that says why; a record that cannot be written is the reconciler's."""
        access, sandbox = self._access, live.sandbox
        await self._listeners.close(sandbox.id)
        await self._endings.destroy(live)
        access.mounting.ended(sandbox)
        known = isinstance(error, AtollError)
        reason = error.message[:REASON_CHARS] if isinstance(error, AtollError) else "internal error"
        event = access.event(
            "sandbox.failed",
            sandbox,
            actor=live.actor or sandbox.owner,
            outcome=error.code if known else "internal",
            request_id=request_id,
        )
        try:
            if live.sandbox.live:
                await access.lives.move(live, SandboxState.FAILED, event, reason=reason)
        except Conflict:
            pass  # somebody killed it meanwhile
        except AtollError as fault:
            _log.warning("sandbox.undo_unrecorded", sandbox_id=sandbox.id, error=fault.message)
        finally:
            access.lives.forget(live)
