"""What this dialect answers, for the document; a test holds what the handlers make to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KeyRateAnswer(_Answer):
    perSecond: float
    burst: int


class _Key(_Answer):
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


class KeyStatsAnswer(_Answer):
    totalRequests: int
    successfulRequests: int
    failedRequests: int
    successRate: float = Field(description="in per cent")
    lastUsed: datetime | None


class AdminKeyUsedAnswer(AdminKeyAnswer):
    usage: KeyStatsAnswer


class AdminKeysAnswer(_Answer):
    keys: list[AdminKeyAnswer]
    total: int
    limit: int
    offset: int


class AdminKeyChangedAnswer(_Answer):
    id: str
    keyPrefix: str
    name: str
    description: str | None
    permissions: list[str]
    metadata: dict[str, Any] | None
    rate: KeyRateAnswer | None


class AdminKeyDoneAnswer(_Answer):
    success: bool
    message: str
    id: str


class AdminKeyUsageAnswer(_Answer):
    keyId: str
    keyPrefix: str
    name: str
    stats: KeyStatsAnswer
