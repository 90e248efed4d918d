"""Limits: what the settings say, as the values that the services and the door take; the composition root calls it.

What the settings do not name has the default of the value that it fills.
"""

from __future__ import annotations

from ipaddress import ip_network

from pydantic import SecretStr

from atoll.domain.host_mount import MountRoot
from atoll.domain.money import MICRO_USD
from atoll.domain.price import ModelPrice
from atoll.domain.rate import Rate, Window
from atoll.domain.workspace import Quota, Reason
from atoll.gateway.previews.limits import CarryLimits
from atoll.services.audit.parts import AuditLimits
from atoll.services.audit.requests import RequestLimits
from atoll.services.identity.jwt_checks import Rules
from atoll.services.identity.logins import LoginLimits
from atoll.services.identity.parts import AuthLimits
from atoll.services.identity.providers import Provider
from atoll.services.identity.throttling import TryLimits
from atoll.services.identity.verification_keys import from_pem
from atoll.services.ledger.prices import Prices
from atoll.services.limits import Limits
from atoll.services.marketplace.marketplace import MarketplaceLimits
from atoll.services.models.dialects import Kind
from atoll.services.models.limits import ModelLimits
from atoll.services.models.providers import Provider as ModelProvider
from atoll.services.models.providers import Providers as ModelProviders
from atoll.services.models.providers import providers_of
from atoll.services.outbound import OutboundLimits
from atoll.services.previews.limits import PreviewLimits
from atoll.services.quotas import QuotaLimits, plans_with
from atoll.services.recovery.second_store import SecondStoreLimits
from atoll.services.tasks.requests import TaskLimits
from atoll.services.webhooks.delivering import DeliveryLimits
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.settings import DAY_S, Settings, SettingsError
from atoll.settings.identity import ProviderSettings
from atoll.settings.models import AnthropicSettings, OpenAiSettings
from atoll.settings.prices import ModelPriceSettings, PriceSettings
from atoll.settings.rates import SurfaceRates as SurfaceSettings
from atoll.surfaces.credentials import QueryWays
from atoll.surfaces.door import DoorLimits
from atoll.surfaces.rate_limit import SurfaceRates


def service_limits(settings: Settings) -> Limits:
    """Of the services of sandboxes, processes, files and templates."""
    maxima, sandboxes = settings.limits.maxima, settings.sandboxes
    return Limits(
        cpu_millis_max=maxima.cpu_millis,
        memory_bytes_max=maxima.memory_bytes,
        pids_max=maxima.pids,
        disk_bytes_max=maxima.disk_bytes,
        inodes_max=maxima.inodes,
        timeout_s_max=maxima.timeout_s,
        idle_s_max=maxima.idle_s,
        max_age_s_max=maxima.max_age_s,
        sandboxes_per_key=settings.limits.max_sandboxes_per_key,
        sandboxes_max=settings.limits.max_sandboxes,
        layers_bytes_max=settings.images.layers_bytes,
        terminals_per_sandbox=sandboxes.terminals,
        jobs_per_sandbox=sandboxes.jobs,
        mount_roots=tuple(MountRoot(root.removesuffix(":rw"), root.endswith(":rw")) for root in sandboxes.mount_roots),
        mounts_never=tuple(map(str, settings.own_paths)),
        output_bytes_max=settings.limits.run_output_bytes,
        stdin_bytes_max=settings.server.body_bytes,
        idle_suspend_s=sandboxes.idle_suspend_s,
        reconcile_every_s=sandboxes.reconcile_s,
        orphan_grace_s=sandboxes.orphan_grace_s,
        ended_kept_s=sandboxes.ended_retention_days * DAY_S,
        requests_kept_s=settings.quotas.idempotency_h * 3_600,
        key_use_kept_s=settings.keys.use_retention_days * DAY_S,
    )


def marketplace_limits(settings: Settings) -> MarketplaceLimits:
    """Of the marketplace."""
    own = settings.marketplace
    return MarketplaceLimits(
        own.workers_per_author, own.versions_per_worker, own.run_s, own.run_s_max, settings.limits.run_output_bytes
    )


def workspace_limits(settings: Settings) -> WorkspaceLimits:
    """Of the workspaces service."""
    own = settings.workspaces
    asked = {
        Reason.PROCESS: own.after_process,
        Reason.STOP: own.on_stop,
        Reason.SUSPEND: own.on_suspend,
        Reason.DAILY: own.daily,
    }
    return WorkspaceLimits(
        quota=Quota(own.quota_bytes, own.quota_inodes),
        quota_max=Quota(own.max_quota_bytes, own.max_quota_inodes),
        workspaces_per_key=own.max_per_key,
        import_bytes=own.import_bytes,
        import_entries=own.import_entries,
        import_s=own.import_s,
        automatic=frozenset(reason for reason, taken in asked.items() if taken),
        revisions_kept=own.revisions_kept,
        snapshots_kept=own.snapshots_kept,
        collect_every_s=own.collect_every_s,
    )


def quota_limits(settings: Settings) -> QuotaLimits:
    """Of the quotas service."""
    stored = settings.workspaces.max_stored_bytes
    plans = settings.quotas.changed(plans_with(settings.limits.max_sandboxes_per_key, stored))
    return QuotaLimits(plans, settings.quotas.warn_percent, settings.keys.cache_s)


def price_table(settings: Settings) -> Prices:
    """Of the ledger: micro-dollars a token, a second and a GiB-hour from dollars for 1,000, one and one."""
    own = settings.prices

    def price(of: ModelPriceSettings | PriceSettings) -> ModelPrice:
        cached = None if of.cached_usd_per_1k is None else of.cached_usd_per_1k * 1_000
        return ModelPrice(of.input_usd_per_1k * 1_000, of.output_usd_per_1k * 1_000, cached)

    return Prices(
        price(own),
        {name: price(model) for name, model in own.models.items()},
        compute_per_s=own.compute_usd_per_s * MICRO_USD,
        storage_per_gib_hour=own.storage_usd_per_gib_h * MICRO_USD,
    )


def storage_limits(settings: Settings) -> StorageLimits:
    """Of the store of chunks."""
    own = settings.workspaces
    return StorageLimits(
        grace_s=own.collect_grace_s,
        stored_bytes_max=own.max_stored_bytes,
        free_bytes_min=own.min_free_bytes,
        page_cache_bytes=own.chunk_cache_bytes,
    )


def second_store_limits(settings: Settings) -> SecondStoreLimits:
    """Of the job that keeps the second store."""
    own = settings.blobs
    return SecondStoreLimits(
        every_s=own.copy_every_s,
        at_once=own.copy_concurrency,
        grace_s=settings.workspaces.collect_grace_s,
        backup_every_s=own.copy_backup_every_s,
        backups_kept=own.copy_backups_kept,
    )


def identity_providers(settings: Settings) -> list[Provider]:
    """The issuers whose tokens are taken. SettingsError where a key is unusable: a server does not start with one."""
    if any(one.issuer == settings.auth.issuer for one in settings.identity.all):
        raise SettingsError(f"an identity provider has the issuer {settings.auth.issuer} of this server (auth.issuer)")
    return [_provider(one) for one in settings.identity.all]


def _provider(one: ProviderSettings) -> Provider:
    try:
        keys = from_pem(one.public_key, one.algorithms) if one.public_key else []
    except ValueError as error:
        raise SettingsError(f"the public_key of the identity provider {one.name} {error}") from None
    return Provider(
        one.name,
        Rules(one.issuer, frozenset(one.audience), skew_s=one.skew_s, subject_claim=one.subject_claim),
        one.algorithms,
        tuple(keys),
        one.jwks_url,
        one.name_claim,
        one.scopes_claim,
        one.scope_prefix,
        frozenset(one.clients),
        tuple(one.required_claims.items()),
    )


def outbound_limits(settings: Settings) -> OutboundLimits:
    """Of the server's calls to URLs of others."""
    own = settings.outbound
    return OutboundLimits(own.timeout_s, own.answer_bytes, own.at_once, tuple(map(ip_network, own.networks)))


def audit_limits(settings: Settings) -> AuditLimits:
    """Of the audit trail."""
    own = settings.audit
    return AuditLimits(own.checkpoint_s, own.streams_per_key, RequestLimits(own.refusals_per_s, own.refusals_burst))


def delivery_limits(settings: Settings) -> DeliveryLimits:
    """Of the calls to webhooks."""
    own = settings.webhooks
    return DeliveryLimits(timeout_s=own.timeout_s, give_up_after_s=own.give_up_after_s, first_retry_s=own.first_retry_s)


def bootstrap_texts(settings: Settings) -> list[str]:
    """The keys that stand in the settings."""
    return [secret.get_secret_value() for secret in settings.keys.bootstrap]


def surface_rates(settings: Settings) -> dict[str, SurfaceRates]:
    """What holds on each surface, and for some classes of routes, by the names that these have in the settings."""
    own = settings.rates
    found: dict[str, SurfaceRates] = {}
    for name in type(own).model_fields:
        section = getattr(own, name)
        if isinstance(section, SurfaceSettings):
            found[name] = SurfaceRates(_key_rate(settings, section), _window(section))
    return found


def _key_rate(settings: Settings, section: SurfaceSettings) -> Rate | None:
    if section.key_per_s is None and section.key_burst is None:
        return None
    own = settings.rates
    return Rate(section.key_per_s or own.key_per_s, section.key_burst or own.key_burst)


def _window(section: SurfaceSettings) -> Window | None:
    return Window(section.address_requests, section.address_window_s) if section.address_requests else None


def door_limits(settings: Settings) -> DoorLimits:
    """Of the door that every request comes through."""
    own = settings.rates
    return DoorLimits(
        enabled=own.enabled,
        key_per_s=own.key_per_s,
        key_burst=own.key_burst,
        address_per_s=own.address_per_s,
        address_burst=own.address_burst,
        refused_per_s=own.refused_per_s,
        refused_burst=own.refused_burst,
        addresses=own.addresses,
        surfaces=surface_rates(settings),
        query=QueryWays(api_key=settings.keys.in_query, token=settings.keys.token_in_query),
        cookies_act=_pages_are_apart(settings),
        sockets_per_key=settings.limits.ws_per_key,
        trusted_proxies=tuple(ip_network(proxy, strict=False) for proxy in settings.server.trusted_proxies),
    )


def _pages_are_apart(settings: Settings) -> bool:
    """Whether no page of a sandbox has a part in this server's origin."""
    own = settings.previews
    return own.path_pages == "sandboxed" or (own.path_pages == "auto" and bool(own.domain))


def auth_limits(settings: Settings) -> AuthLimits:
    """Of users, their logins and tokens."""
    own = settings.auth
    return AuthLimits(
        access_ttl_s=own.access_ttl_s,
        algorithm=own.algorithm,
        key_s=own.key_days * DAY_S,
        issuer=own.issuer,
        audience=own.audience,
        password_chars=own.password_chars,
        cache_s=settings.keys.cache_s,
        others_s=settings.previews.token_s_max,
        logins=LoginLimits(
            refresh_ttl_s=own.refresh_ttl_s,
            login_ttl_s=own.login_ttl_s,
            logins_kept=own.logins_per_user,
            registration=own.registration,
        ),
        tries=TryLimits(
            pair_burst=own.failures_per_user,
            address_burst=own.failures_per_address,
            username_burst=own.failures_of_user,
        ),
    )


def task_limits(settings: Settings) -> TaskLimits:
    """Of tasks, and of their sandboxes."""
    own = settings.agents
    return TaskLimits(
        agent=own.default,
        resources=own.resources(),
        network=own.network_mode(),
        timeout_s=own.timeout_s,
        timeout_s_max=own.timeout_s_max,
        sandbox_timeout_s_max=settings.limits.maxima.timeout_s,
        stop_s=own.stop_s,
        tasks_max=own.tasks_max,
        tasks_per_owner=own.tasks_per_owner,
        waiting_max=own.tasks_waiting_max,
        unended_per_owner=own.tasks_unended_per_owner,
        output_chars_max=own.output_chars,
        events_max=own.events_max,
        events_bytes_max=own.events_bytes,
        kept_s=own.tasks_kept_days * DAY_S,
    )


def preview_limits(settings: Settings) -> PreviewLimits:
    """Of previews."""
    own = settings.previews
    return PreviewLimits(
        domain=own.domain,
        per_owner=own.per_owner,
        token_s=own.token_s,
        token_s_max=own.token_s_max,
        start_fallback=own.start_fallback,
        cache_s=settings.keys.cache_s,
    )


def carry_limits(settings: Settings) -> CarryLimits:
    """Of what goes through previews."""
    own = settings.previews
    return CarryLimits(
        body_bytes=own.body_bytes,
        frame_bytes=settings.server.frame_bytes,
        connect_s=own.connect_s,
        first_byte_s=own.first_byte_s,
        idle_s=own.idle_s,
        kept_s=own.kept_s,
        kept_per_port=own.kept_per_port,
        connections_per_port=own.connections_per_port,
        connections_per_sandbox=own.connections_per_sandbox,
        connections_per_owner=own.connections_per_owner,
        connections_max=own.connections_max,
        sockets_per_address=own.sockets_per_address,
    )


def model_limits(settings: Settings) -> ModelLimits:
    """Of calls of models."""
    own = settings.models
    return ModelLimits(
        request_bytes=own.request_bytes,
        answer_bytes=own.answer_bytes,
        held_bytes=own.held_bytes,
        account_held_bytes=own.account_held_bytes,
        image_tokens=own.image_tokens,
        document_tokens=own.document_tokens,
        output_tokens_max=own.output_tokens_max,
        output_tokens_min=own.output_tokens_min,
        calls_per_task=own.calls_per_task,
        calls_max=own.calls_max,
        queue_s=own.queue_s,
        connect_s=own.connect_s,
        first_byte_s=own.first_byte_s,
        between_s=own.between_s,
        call_s=own.call_s,
        remote_content=own.remote_content,
        hosted_tools=frozenset(own.hosted_tools),
    )


def model_providers(settings: Settings) -> ModelProviders:
    """Where calls of models go."""
    own = settings.models
    others = [
        ModelProvider(name, Kind(one.kind), one.base_url, _text_of(one.api_key), one.models)
        for name, one in own.providers.items()
    ]
    return providers_of(_reached(own.openai), _reached(own.anthropic), others, own.aliases)


def _reached(one: OpenAiSettings | AnthropicSettings) -> tuple[str, str] | None:
    key = _text_of(one.api_key)
    return (one.base_url, key) if one.base_url or key else None


def _text_of(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
