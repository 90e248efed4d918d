"""Use cases of webhooks; the surface of /api/webhooks calls them with the Principal first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from atoll.domain.errors import Conflict, Forbidden, InvalidInput, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.webhook import ACTION_PATTERN, WEBHOOK_ID, Webhook
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.connected import lasting_credential
from atoll.services.identity.group_names import group_meant
from atoll.services.outbound import Outbound
from atoll.services.webhooks.signatures import new_secret, secret_text
from atoll.vaults.base import Vault

ACTIONS_MAX = 50
DESCRIPTION_CHARS_MAX = 1_000
CHANGE_ATTEMPTS = 5
EVERYTHING = ("*",)


class NoWebhook(NotFound):
    """Webhook not found."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A webhook and its secret, which nobody can ask for a second time."""

    webhook: Webhook
    text: str


class Webhooks:
    """`per_owner` bounds how many one owner has."""

    def __init__(
        self, records: Records, vault: Vault, outbound: Outbound, *, per_owner: int = 20, clock: Clock = utc_now
    ) -> None:
        self._records = records
        self._vault = vault
        self._outbound = outbound
        self._per_owner = per_owner
        self._clock = clock

    async def create(
        self,
        principal: Principal,
        url: str,
        *,
        actions: Sequence[str] = EVERYTHING,
        description: str = "",
        group: str | None = None,
        everyone: bool = False,
    ) -> NewSecret:
        """Tell a URL of one's own events from now on, or of the group's; `everyone`: of all tenants'. Needs `write`,
        and `read`: what it is told is read.

        InvalidInput names the field (`url`, `events`, `description`, `group_id`); Forbidden for `everyone` without
        being an administrator, and for a credential that is bound to some resources; QuotaExceeded.
        """
        principal.require(Scope.WRITE)
        owner = await group_meant(self._records, principal, group) or principal.id
        if owner not in principal.owners:
            raise InvalidInput("group_id must be a group of yours", field="group_id")
        principal.require(Scope.WRITE, owner)
        _check_telling(principal)
        if everyone and (not principal.admin or group is not None):
            raise Forbidden("only administrators are told of everybody's events")
        self._outbound.check(url)
        webhook = Webhook(
            new_id("hook"), owner, url, _actions(actions), self._clock(), _description(description), everyone
        )
        secret = new_secret()
        webhook = await self._wrapped(_taken_over(webhook, principal), secret)
        event = self._event("webhook.created", webhook, principal)
        await self._records.add_webhook(webhook, event, quota=self._per_owner)
        return NewSecret(webhook, secret_text(secret))

    async def list(self, principal: Principal) -> list[Webhook]:
        """One's own and one's groups', oldest first. Needs `read`."""
        principal.require(Scope.READ)
        found = await self._records.list_webhooks(principal.owners)
        return [one for one in found if principal.sees(one.owner, one.id) and (principal.admin or not one.everyone)]

    async def get(self, principal: Principal, webhook_id: str) -> Webhook:
        """With how its deliveries go. Needs `read`."""
        return await self._find(principal, webhook_id, Scope.READ)

    async def change(
        self,
        principal: Principal,
        webhook_id: str,
        *,
        url: str | None = None,
        actions: Sequence[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Needs `write`, and `read` for what it is told of and where. One that is enabled again is told of what
        happened meanwhile; whoever enables it or gives it another URL has it from then on: it ends with them."""
        if url is not None:
            self._outbound.check(url)
        if url is not None or actions is not None or enabled:
            principal.require(Scope.WRITE)
            _check_telling(principal)

        def changed(before: Webhook) -> Webhook:
            after = replace(
                before,
                url=before.url if url is None else url,
                actions=before.actions if actions is None else _actions(actions),
                description=before.description if description is None else _description(description),
            )
            if after.url != before.url or (enabled and before.disabled_at is not None):
                after = _taken_over(after, principal)
            if enabled:
                after = replace(after, disabled_at=None, disabled_why=None)
            elif enabled is False and before.disabled_at is None:
                after = replace(after, disabled_at=self._clock(), disabled_why="switched off")
            return after

        for _ in range(CHANGE_ATTEMPTS):
            before = await self._find(principal, webhook_id, Scope.WRITE)
            after = changed(before)
            if after == before:
                return before
            swapped = await self._swap(after, self._event("webhook.changed", after, principal))
            if swapped is not None:
                return swapped
        raise Conflict("the webhook keeps changing: try again")

    async def renew_secret(self, principal: Principal, webhook_id: str) -> NewSecret:
        """A new secret, with which the next call is signed. Needs `write`."""
        for _ in range(CHANGE_ATTEMPTS):
            before = await self._find(principal, webhook_id, Scope.WRITE)
            secret = new_secret()
            after = await self._wrapped(before, secret)
            swapped = await self._swap(after, self._event("webhook.secret_renewed", after, principal))
            if swapped is not None:
                return NewSecret(swapped, secret_text(secret))
        raise Conflict("the webhook keeps changing: try again")

    async def delete(self, principal: Principal, webhook_id: str) -> None:
        """Needs `write`."""
        webhook = await self._find(principal, webhook_id, Scope.WRITE)
        if not await self._records.delete_webhook(webhook, self._event("webhook.deleted", webhook, principal)):
            raise NoWebhook

    async def _find(self, principal: Principal, webhook_id: str, scope: Scope) -> Webhook:
        principal.require(scope)
        found = await self._records.get_webhook(webhook_id) if WEBHOOK_ID.match(webhook_id) else None
        if found is None or not principal.sees(found.owner, found.id):
            raise NoWebhook
        principal.require(scope, found.owner)
        if found.everyone and not principal.admin:
            raise NoWebhook
        return found

    async def _swap(self, webhook: Webhook, event: Event) -> Webhook | None:
        """None when it changed meanwhile."""
        try:
            return await self._records.swap_webhook(webhook, event)
        except StaleVersion:
            return None
        except NotFound:
            raise NoWebhook from None

    async def _wrapped(self, webhook: Webhook, secret: bytes) -> Webhook:
        wrapped = await self._vault.wrap(secret, secret_context(webhook.id))
        return replace(webhook, vault=self._vault.name, secret=wrapped)

    def _event(self, action: str, webhook: Webhook, principal: Principal) -> Event:
        # Without the URL, whose path or query is often a credential: its host says enough.
        detail = {"host": urlsplit(webhook.url).hostname, "events": list(webhook.actions)}
        return Event(action, webhook.id, webhook.owner, principal.id, detail=detail, at=self._clock())


def secret_context(webhook_id: str) -> str:
    """What a wrapped secret is bound to."""
    return f"webhook {webhook_id}"


def _check_telling(principal: Principal) -> None:
    """Whoever says where events are told may read them: all of their owner's."""
    principal.require(Scope.READ)
    if principal.resources is not None:
        raise Forbidden("a credential that is bound to some resources makes no webhooks, and says not where they lead")


def _taken_over(webhook: Webhook, principal: Principal) -> Webhook:
    return replace(webhook, maker=principal.id, credential=lasting_credential(principal))


def _actions(actions: Sequence[str]) -> tuple[str, ...]:
    if not 0 < len(actions) <= ACTIONS_MAX:
        raise InvalidInput(f"events must name 1 to {ACTIONS_MAX} actions", field="events")
    for one in actions:
        if not ACTION_PATTERN.fullmatch(one):
            raise InvalidInput(f"events: {one[:64]!r} is not noun.verb, noun.* or *", field="events")
    return tuple(dict.fromkeys(actions))


def _description(text: str) -> str:
    if len(text) > DESCRIPTION_CHARS_MAX:
        raise InvalidInput(f"description is longer than {DESCRIPTION_CHARS_MAX} characters", field="description")
    return text
