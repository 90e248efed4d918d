"""Previews: registers ports of sandboxes, tells their addresses, mints and checks their tokens, promotes fallbacks.

Surfaces register with it; the door of previews asks it where a request goes.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypedDict, Unpack
from urllib.parse import urlsplit

from atoll.domain.errors import Conflict, InvalidInput, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.ids import SANDBOX_ID, subdomain
from atoll.domain.key import Scope
from atoll.domain.preview import Preview, preview_id
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.home_sandboxes import NAMESPACE
from atoll.services.previews.limits import PreviewLimits
from atoll.services.previews.tokens import NewPreviewToken, PreviewTokens
from atoll.services.reaching import Reaching
from atoll.services.remembered import Remembered
from atoll.services.sandbox_names import SandboxNames
from atoll.services.specs import check_port

METADATA_MAX, METADATA_CHARS_MAX = 64, 1_024
PATH_CHARS_MAX = 1_024
TRIES = 5
CHANGES_MAX = 10_000
TOKEN_S_MIN = 1.0
LISTED_MAX = 1_000
_PATH = re.compile(r"/[!-~]*")


class Said(TypedDict, total=False):
    """What may be said of a preview when it is registered."""

    public: bool
    fallback_sandbox_id: str | None
    health_path: str | None
    metadata: Mapping[str, str]


class NoPreview(NotFound):
    """Preview target not registered"""


class Previews:
    """Use cases of previews. Every method that takes a principal raises NotFound for a sandbox that it does not see."""

    def __init__(
        self,
        records: Records,
        reaching: Reaching,
        tokens: PreviewTokens,
        limits: PreviewLimits | None = None,
        *,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._names = SandboxNames(records)
        self.reaching = reaching
        self._tokens = tokens
        self.limits = limits or PreviewLimits()
        self._clock = clock
        self._changes: dict[str, int] = {}  # of previews, by this server
        self._forgotten = 0  # how often it began to count them anew
        self._healthy: dict[str, tuple[str, bool]] = {}  # by preview: which sandbox was asked, and what that said
        self._known = Remembered[Preview | None](lambda name: records.get_preview(name), self.limits.cache_s, monotonic)

    async def register(
        self,
        principal: Principal,
        sandbox_id: str,
        port: int,
        **said: Unpack[Said],
    ) -> Preview:
        """Let a port of a sandbox be reached. One that is registered already takes what is said, keeps the rest, and
        its tokens hold on; saying its fallback puts it back to its own sandbox.

        Needs `execute`. InvalidInput `port`, `fallback_sandbox_id`, `health_path`, `metadata`; NotFound; Conflict for a
        sandbox that has ended; QuotaExceeded.
        """
        check_port(port)
        _check(said)
        sandbox_id = await self.resolve(principal, sandbox_id)
        sandbox = await self.reaching.find(principal, sandbox_id, Scope.EXECUTE)
        if sandbox.ended and not sandbox.may_wake:
            raise Conflict(f"session already {sandbox.state}")
        if (fallback := said.get("fallback_sandbox_id")) is not None:
            await self._check_fallback(principal, sandbox, fallback)
        fresh = Preview(sandbox.id, port, sandbox.owner, secrets.token_hex(8), self._clock())
        for _ in range(TRIES):
            try:
                return await self._put(fresh, said, principal)
            except (StaleVersion, NotFound, Conflict):
                continue  # somebody else registers it too
        raise Conflict("the preview keeps changing: try again")

    async def shown(self, principal: Principal, sandbox_id: str, port: int) -> Preview:
        """The preview, registered where nobody has done so. As `register`."""
        check_port(port)
        with suppress(NoPreview):
            found = await self.get(principal, sandbox_id, port, Scope.EXECUTE)
            if not found.unasked:
                return found
        return await self.register(principal, sandbox_id, port)

    async def list(self, principal: Principal, *, after: str = "", limit: int = LISTED_MAX) -> list[Preview]:
        """What the principal sees, its groups' too: by id, behind the id `after`. Needs `read`."""
        principal.require(Scope.READ)
        return await self._records.list_previews(principal.owners, within=principal.resources, after=after, limit=limit)

    async def get(self, principal: Principal, sandbox_id: str, port: int, scope: Scope = Scope.READ) -> Preview:
        """NoPreview when the port is not registered."""
        sandbox_id = await self.resolve(principal, sandbox_id)
        await self.reaching.find(principal, sandbox_id, scope)
        found = await self._records.get_preview(preview_id(sandbox_id, port))
        if found is None:
            raise NoPreview
        return found

    async def remove(self, principal: Principal, sandbox_id: str, port: int) -> Preview:
        """Nobody reaches it from now on, and its tokens open nothing. Needs `execute`. NoPreview."""
        found = await self.get(principal, sandbox_id, port, Scope.EXECUTE)
        try:
            await self._records.delete_preview(found.id, self._event("preview.removed", found, principal.id))
        except NotFound:
            raise NoPreview from None
        finally:
            self._forget(found.id)
        return found

    async def mint(
        self, principal: Principal, sandbox_id: str, port: int, *, lasts_s: float | None = None
    ) -> tuple[Preview, NewPreviewToken]:
        """A token that opens this preview and nothing else. Needs `execute`. NoPreview, InvalidInput `expires_in`."""
        longest_s = self.limits.token_s_max
        lasts_s = min(self.limits.token_s, longest_s) if lasts_s is None else lasts_s
        if not TOKEN_S_MIN <= lasts_s <= longest_s:
            raise InvalidInput(f"expires_in must be within {TOKEN_S_MIN:g}..{longest_s:g} s", field="expires_in")
        found = await self.get(principal, sandbox_id, port, Scope.EXECUTE)
        return found, await self._tokens.mint(principal, found, lasts_s)

    async def resolve(self, principal: Principal, id_or_name: str) -> str:
        """The id of a sandbox that is meant: of the Terminal Platform's ones their holders choose the names."""
        if SANDBOX_ID.match(id_or_name):
            return id_or_name
        return await self._names.resolve(principal, id_or_name, NAMESPACE)

    def url(self, preview: Preview, base: str) -> str:
        """Where it is reached, by whoever reached this server at `base`: `http://host[:port]`."""
        parts = urlsplit(base)
        if not self.limits.domain:
            return f"{base.rstrip('/')}/preview/{preview.sandbox_id}/{preview.port}/"
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{preview.port}-{subdomain(preview.sandbox_id)}.{self.limits.domain}{port}/"

    def healthy(self, preview: Preview) -> bool | None:
        """What the last check of what serves it now said; None when none was made lately."""
        asked, healthy = self._healthy.get(preview.id, ("", False))
        return healthy if asked == preview.target else None

    # for the gateway, which knows no principals

    def note_health(self, preview: Preview, *, healthy: bool) -> None:
        self._healthy[preview.id] = (preview.target, healthy)

    def forget_health(self, preview_id: str) -> None:
        self._healthy.pop(preview_id, None)

    def generation(self, preview_id: str) -> tuple[int, int]:
        """Of what this server knows of it: another one once it was changed here."""
        return self._forgotten, self._changes.get(preview_id, 0)

    async def find(self, sandbox_id: str, port: int) -> Preview | None:
        """The registration, as it was at most `cache_s` ago."""
        return await self._known.get(preview_id(sandbox_id, port))

    async def opens(self, text: str, preview: Preview) -> float | None:
        """For how many seconds a token still opens the preview; None when it does not."""
        return await self._tokens.opens(text, preview)

    async def promote(self, preview: Preview, fallback_sandbox_id: str | None = None) -> Preview:
        """Let the fallback take over; however many ask at once, it happens once. NoPreview when it is gone."""
        for _ in range(TRIES):
            stored = await self._records.get_preview(preview.id)
            if stored is None:
                self._forget(preview.id)
                raise NoPreview
            if stored.use_fallback:
                self._forget(preview.id)
                return stored
            after = replace(
                stored, use_fallback=True, fallback_sandbox_id=fallback_sandbox_id or stored.fallback_sandbox_id
            )
            event = self._event("preview.promoted", after, "system", fallback=after.fallback_sandbox_id)
            try:
                return await self._records.swap_preview(after, event)
            except StaleVersion:
                continue
            finally:
                self._forget(preview.id)
        raise Conflict("the preview keeps changing: try again")

    async def succeed(self, sandbox_id: str, owner: str, begun: str) -> str | None:
        """Let a sandbox that was begun for it take over all ports of one, but those that have a fallback of their own;
        which one has: another server's where that was faster, None where no port is left."""
        taker: str | None = None
        for one in await self._records.list_previews((owner,), within=(sandbox_id,)):
            if one.sandbox_id == sandbox_id and one.fallback_sandbox_id is None:
                with suppress(NoPreview):
                    after = await self.promote(one, taker or begun)
                    taker = taker or after.target
        return taker

    async def _put(self, fresh: Preview, said: Said, principal: Principal) -> Preview:
        stored = await self._records.get_preview(fresh.id)
        try:
            if stored is None:
                made = replace(fresh, **said)
                event = self._event("preview.registered", made, principal.id, public=made.public)
                await self._records.add_preview(made, event, quota=self.limits.per_owner)
                return made
            # What nobody had asked for is somebody's from now on.
            after = replace(replace(stored, metadata={}) if stored.unasked else stored, **said)
            if "fallback_sandbox_id" in said:
                after = replace(after, use_fallback=False)
            if after == stored:
                return stored
            event = self._event("preview.changed", after, principal.id, public=after.public)
            return await self._records.swap_preview(after, event)
        finally:
            self._forget(fresh.id)

    async def _check_fallback(self, principal: Principal, sandbox: Sandbox, fallback_sandbox_id: str) -> None:
        field = "fallback_sandbox_id"
        if fallback_sandbox_id == sandbox.id:
            raise InvalidInput(f"{field} is the sandbox itself: name another", field=field)
        try:
            found = await self.reaching.find(principal, fallback_sandbox_id, Scope.EXECUTE)
        except NotFound:
            raise InvalidInput(f"{field} names no sandbox of yours", field=field) from None
        if found.owner != sandbox.owner:
            raise InvalidInput(f"{field} names a sandbox of another owner", field=field)

    def _forget(self, preview_id: str) -> None:
        self._known.forget(preview_id)
        if len(self._changes) >= CHANGES_MAX:
            self._changes.clear()
            self._forgotten += 1
        self._changes[preview_id] = self._changes.get(preview_id, 0) + 1

    def _event(self, action: str, preview: Preview, actor: str, **detail: object) -> Event:
        detail = {name: value for name, value in detail.items() if value is not None}
        return Event(action, preview.id, preview.owner, actor, detail=detail, at=self._clock())


def sandbox_of(label: str) -> str | None:
    """The sandbox that a label of a host's name means; None when it can mean none."""
    sandbox_id = label.replace("-", "_", 1)
    return sandbox_id if SANDBOX_ID.match(sandbox_id) else None


def _check(said: Said) -> None:
    health_path, metadata = said.get("health_path"), said.get("metadata", {})
    if health_path is not None and (len(health_path) > PATH_CHARS_MAX or not _PATH.fullmatch(health_path)):
        raise InvalidInput("health_path must be a path, percent-encoded", field="health_path")
    if len(metadata) > METADATA_MAX:
        raise InvalidInput(f"metadata holds at most {METADATA_MAX} values", field="metadata")
    if any(len(text) > METADATA_CHARS_MAX for pair in metadata.items() for text in pair):
        raise InvalidInput(f"metadata: names and values have at most {METADATA_CHARS_MAX} characters", field="metadata")
