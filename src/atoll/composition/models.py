"""The calls of models, as the settings want them: providers, prices, and the credentials that reach no provider."""

from __future__ import annotations

from atoll.limits import bootstrap_texts, model_limits, model_providers
from atoll.services.ledger.ledger import Ledger
from atoll.services.model_calls import ModelCalls
from atoll.services.models.blanking import Blanking
from atoll.services.secret_giving import SecretGiving
from atoll.settings import Settings
from atoll.telemetry.metrics import Metrics


def make_model_calls(settings: Settings, ledger: Ledger, giving: SecretGiving, metrics: Metrics) -> ModelCalls:
    """Whoever runs tasks sets its `tasks`."""
    providers, admin_key = model_providers(settings), settings.admin.api_key
    own = [one.key for one in providers.all] + list(bootstrap_texts(settings))
    own += [] if admin_key is None else [admin_key.get_secret_value()]
    blanking = Blanking(giving.values, own)
    return ModelCalls(ledger, ledger.prices, providers, blanking, model_limits(settings), metrics=metrics)
