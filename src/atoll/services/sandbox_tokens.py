"""SandboxTokens: credentials for single sandboxes, which whoever may use one makes to give away; Identity asks it too.

One ends with its sandbox and with the credential that it was made with, and never opens more than that does now.
"""

from __future__ import annotations

import builtins
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, QuotaExceeded, Unauthenticated
from atoll.domain.event import Event
from atoll.domain.ids import SANDBOX_ID, new_id
from atoll.domain.key import KeyKind, Scope, hash_key
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.domain.sandbox_token import TOKEN_ID, TOKEN_PREFIX, SandboxToken, TokenKind, new_token_text
from atoll.domain.user import LOGIN_ID
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.connected import Connected, Source, lasting_credential
from atoll.services.identity.memberships import Memberships
from atoll.services.identity.standing import Standing
from atoll.services.remembered import Remembered

TEXT_CHARS_MAX = 128
DESCRIPTION_CHARS_MAX = 1_024
LASTS_S_MAX = 30 * 86_400.0
ACCESS_S = 7 * 86_400.0
SESSION_S = 7 * 86_400.0
MAGIC_S = 300.0
TERMINAL_S = 60.0
OPENED_MAX = 10_000  # terminal tokens whose connections go on
PER_SANDBOX = 1_000  # of each kind
REUSED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token's text, which nobody can ask for a second time."""

    text: str
    id: str
    expires_at: datetime


class SandboxTokens:
    """An authenticator of Identity, and what makes what it accepts. `cache_s` is how long another server may still take
    one that was revoked here."""

    def __init__(
        self,
        records: Records,
        connected: Connected,
        standing: Standing,
        memberships: Memberships,
        *,
        cache_s: float = 2.0,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._connected = connected
        self._standing = standing
        self._memberships = memberships
        self._clock = clock
        self._by_hash: Remembered[SandboxToken | None] = Remembered(records.find_sandbox_token, cache_s, monotonic)
        self._by_id: Remembered[SandboxToken | None] = Remembered(records.get_sandbox_token, cache_s, monotonic)
        self._sandboxes: Remembered[Sandbox | None] = Remembered(records.get_sandbox, cache_s, monotonic)
        self._access: OrderedDict[tuple[str, str], NewToken] = OrderedDict()  # by sandbox and credential
        self._opened: OrderedDict[str, SandboxToken] = OrderedDict()  # terminal tokens that let somebody in, by hash

    async def mint(
        self,
        principal: Principal,
        sandbox_id: str,
        *,
        kind: TokenKind,
        lasts_s: float,
        description: str = "",
        id: str | None = None,
        within: SandboxToken | None = None,
    ) -> NewToken:
        """A token with the principal's own scopes, for that sandbox alone. With an `id`: Conflict while there is one.
        It ends at the latest with the token that the principal came with, or with the one that it lies `within`.

        NotFound for a sandbox that is not the principal's, or has ended. Forbidden for a session or terminal token that
        wants to make session tokens, for a terminal token that wants to make any, and for all that want access tokens.
        InvalidInput names the field.
        """
        sandbox = await self._sandbox_of(principal, sandbox_id)
        if not 0 < lasts_s <= LASTS_S_MAX:
            raise InvalidInput(f"expiresIn must be above 0 and at most {LASTS_S_MAX:g} seconds", field="expiresIn")
        if len(description) > DESCRIPTION_CHARS_MAX:
            raise InvalidInput(f"description must be at most {DESCRIPTION_CHARS_MAX} characters", field="description")
        scopes = _given_on(principal, sandbox.owner)
        if not scopes:
            raise Forbidden("this credential may do nothing with the sandbox")
        now, text = self._clock(), new_token_text(kind)
        token = SandboxToken(
            id=id or new_id("stk"),
            hash=hash_key(text),
            sandbox=sandbox.id,
            kind=kind,
            owner=sandbox.owner,
            maker=principal.id,
            # Whoever has no quota gives that on, but never the right to administer the server.
            account_kind=KeyKind.INTERNAL if principal.kind is KeyKind.OWNER else principal.kind,
            plan=principal.plan,
            scopes=scopes,
            created_at=now,
            expires_at=now + timedelta(seconds=lasts_s),
            description=description,
            credential=lasting_credential(principal),
            credential_hash="",
            login=principal.credential if LOGIN_ID.match(principal.credential) else "",
        )
        if TOKEN_ID.match(principal.credential):
            within = await self._maker_of(token, principal.credential)
            # One that a token makes stands on what that one stands on.
            same = {name: getattr(within, name) for name in ("credential", "credential_hash", "login", "maker")}
            token = replace(token, **same)
        else:
            source = await self._connected.source(token.credential, sandbox.owner)
            token = replace(token, credential_hash=source.key_hash)
        if within is not None:
            token = replace(token, parent=within.id, expires_at=min(token.expires_at, within.expires_at))
        return await self._store(token, text)

    async def _store(self, token: SandboxToken, text: str) -> NewToken:
        await self._records.add_sandbox_token(token, self._created(token), quota=PER_SANDBOX)
        self._by_hash.forget(token.hash)  # it may be remembered as unknown
        return NewToken(text, token.id, token.expires_at)

    async def access(
        self, principal: Principal, sandbox_id: str, text: str = "", *, within: SandboxToken | None = None
    ) -> NewToken:
        """An access token, the same again for the same credential for half of its time, and for an access token itself:
        `text` is what the principal came with. `within` and errors as of `mint`.

        Each login has one of its own: where there are as many as there may be, its maker's oldest gives way.
        """
        own = await self.of(principal)
        if own is not None and own.kind is TokenKind.ACCESS and own.sandbox == sandbox_id:
            await self._sandbox_of(principal, sandbox_id)
            return NewToken(text, own.id, own.expires_at)
        if within is not None:
            return await self.mint(principal, sandbox_id, kind=TokenKind.ACCESS, lasts_s=ACCESS_S, within=within)
        asked = (sandbox_id, principal.credential)
        known = self._access.get(asked)
        if known is not None and (known.expires_at - self._clock()).total_seconds() > ACCESS_S / 2:
            with suppress(Unauthenticated):
                found = await self._found(known.text)
                if (await self.authenticate(known.text)).scopes == _given_on(principal, found.owner):
                    return known
        try:
            made = await self.mint(principal, sandbox_id, kind=TokenKind.ACCESS, lasts_s=ACCESS_S)
        except QuotaExceeded:
            await self._drop_oldest(principal, sandbox_id)
            made = await self.mint(principal, sandbox_id, kind=TokenKind.ACCESS, lasts_s=ACCESS_S)
        self._access[asked] = made
        if len(self._access) > REUSED_MAX:
            self._access.popitem(last=False)
        return made

    async def redeem(self, text: str, sandbox_id: str) -> tuple[NewToken, str]:
        """For the text of a magic link, once: a session token, and what the link was made with. Unauthenticated;
        QuotaExceeded, which does not use the link up."""
        token = await self._found(text)
        if token.kind is not TokenKind.MAGIC or token.sandbox != sandbox_id or self._clock() >= token.expires_at:
            raise Unauthenticated
        source, above = await self._source(token), await self._by_id.get(token.parent) if token.parent else None
        now, session_text = self._clock(), new_token_text(TokenKind.SESSION)
        ends = now + timedelta(seconds=SESSION_S)
        session = replace(  # it stands on what the link stands on
            token,
            id=new_id("stk"),
            hash=hash_key(session_text),
            kind=TokenKind.SESSION,
            scopes=token.scopes & source.scopes,
            created_at=now,
            expires_at=ends if above is None else min(ends, above.expires_at),
            description="magic link",
        )
        events = (self._event("sandbox_token.redeemed", token), self._created(session))
        try:
            await self._records.redeem_sandbox_token(token.id, session, events, quota=PER_SANDBOX)
        except NotFound:
            raise Unauthenticated from None
        finally:
            self._by_hash.forget(token.hash)
            self._by_hash.forget(session.hash)  # it may be remembered as unknown
        return NewToken(session_text, session.id, session.expires_at), token.description

    async def _drop_oldest(self, principal: Principal, sandbox_id: str) -> None:
        """Of the principal's own access tokens of the sandbox; nobody else's."""
        for token in await self._records.list_sandbox_tokens(sandbox_id, TokenKind.ACCESS):
            if token.maker == principal.id:
                with suppress(NotFound):  # another login was faster, and takes that place itself
                    await self._delete(token, actor=principal.id)
                    return

    async def _delete(self, token: SandboxToken, *, actor: str) -> None:
        try:
            event = self._event("sandbox_token.revoked", token, actor=actor)
            await self._records.delete_sandbox_token(token.id, event)
        finally:
            self._by_hash.forget(token.hash)
            self._by_id.forget(token.id)

    async def _maker_of(self, token: SandboxToken, credential: str) -> SandboxToken:
        """The token that makes this one. Forbidden where it may not."""
        made_by = await self._by_id.get(credential)
        if made_by is None:
            raise Unauthenticated
        if made_by.kind is TokenKind.TERMINAL or (
            made_by.kind is TokenKind.SESSION and token.kind is not TokenKind.TERMINAL
        ):
            raise Forbidden("Access token required: a session token makes no others")
        if token.kind is TokenKind.ACCESS:
            raise Forbidden("an access token makes no other: it would renew itself for ever")
        return made_by

    async def list(
        self, principal: Principal, sandbox_id: str, kind: TokenKind = TokenKind.SESSION
    ) -> builtins.list[SandboxToken]:
        """The session tokens of the sandbox that are still good, oldest first, or those of another kind. Errors as of
        `mint`; access tokens need `execute`, and no token shows or ends them."""
        await self._may_manage(principal, sandbox_id, kind)
        now = self._clock()
        found = await self._records.list_sandbox_tokens(sandbox_id, kind)
        return [one for one in found if now < one.expires_at]

    async def get(
        self, principal: Principal, sandbox_id: str, token_id: str, kind: TokenKind = TokenKind.SESSION
    ) -> SandboxToken:
        """One of those. NotFound, always the same, for any other."""
        await self._may_manage(principal, sandbox_id, kind)
        token = await self._records.get_sandbox_token(token_id) if TOKEN_ID.match(token_id) else None
        there = token is not None and token.sandbox == sandbox_id and token.kind is kind
        if token is None or not there or self._clock() >= token.expires_at:
            raise NotFound("token not found")
        return token

    async def revoke(
        self, principal: Principal, sandbox_id: str, token_id: str, kind: TokenKind = TokenKind.SESSION
    ) -> None:
        """As `get`; the next request with it is refused, or with what it has made."""
        token = await self.get(principal, sandbox_id, token_id, kind)
        try:
            await self._delete(token, actor=principal.id)
        except NotFound:
            raise NotFound("token not found") from None

    async def of(self, principal: Principal) -> SandboxToken | None:
        """The token that the principal came with; None for any other credential."""
        return await self._by_id.get(principal.credential) if TOKEN_ID.match(principal.credential) else None

    async def maker(self, principal: Principal) -> Principal:
        """Who made the access token that the principal came with, with all that their credential reaches now: for what
        its holder may make beside the sandbox. The principal itself when it came otherwise; Forbidden for other kinds
        of tokens."""
        token = await self.of(principal)
        if token is None:
            return principal
        if token.kind is not TokenKind.ACCESS:
            raise Forbidden("Access token required: a session token makes nothing")
        source = await self._source(token)
        groups = await self._memberships.of(token.maker)
        made = self._principal(token, source)
        credential = token.login or token.credential
        return replace(made, credential=credential, resources=source.resources, groups=groups)

    def forget(self, sandbox_id: str) -> None:
        """The sandbox has changed: look again."""
        self._sandboxes.forget(sandbox_id)

    def recognises(self, text: str) -> bool:
        return text.startswith(TOKEN_PREFIX)

    async def authenticate(self, text: str) -> Principal:
        """Who made it, narrowed to the sandbox. Unauthenticated when it is unknown, expired or revoked, its sandbox has
        ended, or the credential behind it, or the token that made it, is good no more."""
        token = await self._found(text)
        if self._clock() >= token.expires_at or token.kind is TokenKind.MAGIC:
            raise Unauthenticated
        source = await self._source(token)
        if token.kind is TokenKind.TERMINAL:
            self._opened[token.hash] = token
            if len(self._opened) > OPENED_MAX:
                self._opened.popitem(last=False)
        return self._principal(token, source)

    async def still_good(self, text: str) -> Principal:
        """As `authenticate`, for a connection that it opened: a terminal token's minute ends none."""
        token = self._opened.get(hash_key(text))  # the records forget it once it has expired
        if token is None:
            return await self.authenticate(text)
        self._opened.move_to_end(token.hash)
        return self._principal(token, await self._source(token))

    async def _found(self, text: str) -> SandboxToken:
        token = await self._by_hash.get(hash_key(text)) if len(text) <= TEXT_CHARS_MAX and text.isascii() else None
        if token is None:
            raise Unauthenticated
        return token

    async def _source(self, token: SandboxToken) -> Source:
        sandbox = await self._sandboxes.get(token.sandbox)
        if sandbox is None or sandbox.removed or (sandbox.ended and not sandbox.may_wake):
            raise Unauthenticated
        above = token.parent
        while above:
            parent = await self._by_id.get(above)
            if parent is None or self._clock() >= parent.expires_at:
                raise Unauthenticated
            above = parent.parent
        if token.login:
            await self._standing.login(token.login)
        source = await self._connected.source(token.credential, sandbox.owner)
        if source.key_hash != token.credential_hash:
            raise Unauthenticated
        resources = source.resources
        if resources is not None and sandbox.id not in resources and sandbox.owner not in resources:
            raise Unauthenticated
        return source

    def _principal(self, token: SandboxToken, source: Source) -> Principal:
        return Principal(
            id=token.maker,
            kind=token.account_kind,
            scopes=token.scopes & source.scopes,
            name=token.description or token.sandbox,
            credential=token.id,
            resources=frozenset({token.sandbox}),
            plan=token.plan,
            rate=source.rate,
            lineage=source.lineage,
            rated_as=source.rated_as or token.credential,
        )

    async def _may_manage(self, principal: Principal, sandbox_id: str, kind: TokenKind) -> None:
        sandbox = await self._sandbox_of(principal, sandbox_id)
        token = await self.of(principal)
        if token is not None and token.kind is not TokenKind.ACCESS:
            raise Forbidden("Access token required: a session token manages no others")
        if kind is not TokenKind.ACCESS:
            return
        if token is not None:
            raise Forbidden("a token of a sandbox manages no access tokens: use your own credential")
        principal.require(Scope.EXECUTE, sandbox.owner)

    async def _sandbox_of(self, principal: Principal, sandbox_id: str) -> Sandbox:
        sandbox = await self._records.get_sandbox(sandbox_id) if SANDBOX_ID.match(sandbox_id) else None
        if sandbox is None or sandbox.removed or not principal.sees(sandbox.owner, sandbox.id):
            raise NotFound("session not found")
        if sandbox.ended and not sandbox.may_wake:
            raise NotFound("session not found")
        return sandbox

    def _created(self, token: SandboxToken) -> Event:
        return self._event("sandbox_token.created", token, kind=token.kind.value)

    def _event(self, action: str, token: SandboxToken, actor: str = "", **detail: object) -> Event:
        return Event(
            action,
            token.id,
            token.owner,
            actor or token.maker,
            detail={"sandbox": token.sandbox, **detail},
            at=self._clock(),
        )


def _given_on(principal: Principal, owner: str) -> frozenset[Scope]:
    """What a token may that the principal makes for a sandbox of that owner: never to administer the server."""
    role = principal.groups.get(owner)
    return (principal.scopes if role is None else principal.scopes & role.scopes) - {Scope.ADMIN}
