"""What this dialect answers, for the document; a test holds what the handlers make to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from atoll.surfaces.models import AnswerModel


class KeyRateAnswer(AnswerModel):
    perSecond: float
    burst: int


class _Key(AnswerModel):
    id: str = Field(pattern=r"^key_[0-9a-f]{12}$")
    keyPrefix: str
    keyType: Literal["standard", "internal", "owner"]
    name: str
    description: str | None
    createdAt: datetime
    expiresAt: datetime | None
    permissions: list[str]
    metadata: dict[str, Any] | None
    plan: str
    rate: KeyRateAnswer | None


class AdminNewKeyAnswer(_Key):
    key: str = Field(description="its text: shown now, and never again")
    warning: str


class AdminKeyAnswer(_Key):
    lastUsedAt: datetime | None
    isActive: bool


class KeyStatsAnswer(AnswerModel):
    totalRequests: int
    successfulRequests: int
    failedRequests: int
    successRate: float = Field(description="in per cent")
    lastUsed: datetime | None


class AdminKeyUsedAnswer(AdminKeyAnswer):
    usage: KeyStatsAnswer


class AdminKeysAnswer(AnswerModel):
    keys: list[AdminKeyAnswer]
    total: int
    limit: int
    offset: int


class AdminKeyChangedAnswer(AnswerModel):
    id: str
    keyPrefix: str
    name: str
    description: str | None
    permissions: list[str]
    metadata: dict[str, Any] | None
    rate: KeyRateAnswer | None


class AdminKeyDoneAnswer(AnswerModel):
    success: bool
    message: str
    id: str


class AdminKeyUsageAnswer(AnswerModel):
    keyId: str
    keyPrefix: str
    name: str
    stats: KeyStatsAnswer
