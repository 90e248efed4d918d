"""The bodies and query parameters of the account's routes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from atoll.domain.account_limits import MOST
from atoll.surfaces.models import BodyModel
from atoll.surfaces.operation import Parameter

DAYS = Parameter("days", "so many days, today included; default 7", int, minimum=1, maximum=90)
EXPORT_DAYS = Parameter("days", "so many days, today included; default 30", int, minimum=1, maximum=90)
FORMAT = Parameter("format", "default: json", choices=("json", "csv"))

Amount = Annotated[int, Field(ge=1, le=MOST)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Description = Annotated[str, Field(max_length=1_000)]
Email = Annotated[str, Field(min_length=3, max_length=255)]
Moment = Annotated[
    # strict JSON has moments as text alone
    datetime,
    Field(strict=False),
    AfterValidator(lambda moment: moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment),
]


class _Body(BodyModel):
    def given(self) -> dict[str, Any]:
        """What the body names, null too."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class AccountLimitsBody(_Body):
    """PUT /v1/account/limits: what is absent stays, null takes away."""

    daily_requests_limit: Amount | None = None
    concurrent_requests_limit: Amount | None = None
    monthly_cost_limit_cents: Annotated[int, Field(ge=0, le=MOST)] | None = None
    alert_threshold: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="per cent")
    billing_email: Email | None = None
    timezone: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class AccountKeyBody(_Body):
    """POST /v1/account/keys."""

    name: Name
    description: Description | None = None
    expires_at: Moment | None = Field(None, description="default: with the key that makes it")
    custom_daily_limit: Amount | None = None
    custom_concurrent_limit: Amount | None = None


class AccountKeyChangeBody(_Body):
    """PUT /v1/account/keys/{key}: what is absent stays, null takes away."""

    name: Name | None = None
    description: Description | None = None
    expires_at: Moment | None = None
    custom_daily_limit: Amount | None = None
    custom_concurrent_limit: Amount | None = None


class WaitlistBody(_Body):
    """POST /v1/waitlist."""

    email: Email
    name: Name | None = None


class QuotaRequestBody(_Body):
    """POST /v1/quota-requests."""

    email: Email
    name: Annotated[str, Field(max_length=255)] | None = None
    company: Annotated[str, Field(max_length=255)] | None = None
    use_case: Annotated[str, Field(max_length=4_000)] | None = None
    requested_limits: Annotated[str, Field(max_length=1_000)] | dict[str, int | str] | None = None
    budget: Annotated[str, Field(max_length=255)] | int | None = None
