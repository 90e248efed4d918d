"""The metric of identity providers; the application registers it, and it is read when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class ProvidersUp(Collector):
    """`identity_provider_up`: 1 where the last look at a provider's keys found some, else 0."""

    def __init__(self, answering: Callable[[], Mapping[str, bool]]) -> None:
        self._answering = answering

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "identity_provider_up", "Whether an identity provider's keys were found", labels=("provider",)
        )
        for provider, up in self._answering().items():
            family.add_metric((provider,), float(up))
        yield family
