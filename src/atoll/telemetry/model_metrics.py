"""The metrics of the model gateway; `Metrics` holds them, docs/operations.md tells what they count."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from atoll.domain.price import TokenUse

REFUSED = ("money", "busy", "request", "task")
BEGAN_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class ModelMetrics:
    """Counted by `services/model_calls.py` and the gateway. Providers are named in the settings: their names are few,
    and none is a tenant's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "model_calls_total", "Calls of models, by how they ended", ("provider", "outcome"), registry=registry
        )
        self._refused = Counter(
            "model_calls_refused_total", "Calls of models that no provider was asked", ("reason",), registry=registry
        )
        for reason in REFUSED:
            self._refused.labels(reason)
        self._tokens = Counter("model_tokens_total", "Tokens that models used", ("type",), registry=registry)
        self._estimated = Counter(
            "model_calls_estimated_total", "Calls whose tokens no provider told", registry=registry
        )
        self._blanked = Counter(
            "model_secrets_blanked_total", "Places in requests where a secret was taken out", registry=registry
        )
        self._began = Histogram(
            "model_first_byte_seconds",
            "How long providers took to begin an answer",
            ("provider",),
            buckets=BEGAN_S,
            registry=registry,
        )

    def called(self, provider: str, outcome: str) -> None:
        """`outcome`: answered, refused, broken, silent or left."""
        self._calls.labels(provider, outcome).inc()

    def refused(self, reason: str) -> None:
        """`reason` is one of REFUSED."""
        self._refused.labels(reason).inc()

    def began(self, provider: str, seconds: float) -> None:
        self._began.labels(provider).observe(seconds)

    def used(self, tokens: TokenUse) -> None:
        self._tokens.labels("input").inc(tokens.input)
        self._tokens.labels("output").inc(tokens.output)
        self._tokens.labels("cached").inc(tokens.cached)
        if tokens.estimated:
            self._estimated.inc()

    def blanked(self, places: int) -> None:
        self._blanked.inc(places)
