"""What `/billing` answers, for the document; a test holds what the handlers make to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from atoll.surfaces.models import AnswerModel


class BillingAccountAnswer(AnswerModel):
    id: str
    apiKeyId: str
    creditsBalance: float = Field(description="dollars, exact to the millionth; likewise all amounts here")
    totalSpent: float
    dailyLimit: float | None
    monthlyLimit: float | None
    createdAt: datetime
    updatedAt: datetime


class AccountChangedAnswer(AnswerModel):
    success: bool
    account: BillingAccountAnswer


class BillingStatsAnswer(AnswerModel):
    totalRequests: int
    totalTokens: int
    inputTokens: int
    outputTokens: int
    totalCost: float = Field(description="of tokens, compute and storage")
    inputCost: float
    outputCost: float
    successfulRequests: int
    failedRequests: int
    successRate: float = Field(description="in per cent")


class UsageRecordAnswer(AnswerModel):
    id: str
    apiKeyId: str
    sessionId: str
    workspaceId: str
    timestamp: datetime
    inputTokens: int
    outputTokens: int
    totalTokens: int
    inputCost: float
    outputCost: float
    totalCost: float
    model: str
    duration: int | None = Field(description="milliseconds")
    status: Literal["success", "error", "cancelled", "unknown"]
    endpoint: str


class UsageAnswer(AnswerModel):
    count: int
    records: list[UsageRecordAnswer]


class TransactionAnswer(AnswerModel):
    id: str
    apiKeyId: str
    type: Literal["credit_purchase", "usage_deduction", "credit_adjustment", "refund", "worker_earning"]
    amount: float = Field(description="below 0: taken from the account")
    balanceAfter: float
    description: str | None
    metadata: dict[str, Any] | None
    timestamp: datetime


class TransactionsAnswer(AnswerModel):
    count: int
    transactions: list[TransactionAnswer]


class WorkspaceCostAnswer(AnswerModel):
    workspaceId: str
    totalCost: float
    totalTokens: int
    requestCount: int


class WorkspaceCostsAnswer(AnswerModel):
    count: int
    workspaces: list[WorkspaceCostAnswer]


class CostAnswer(AnswerModel):
    name: str = Field(description="a task's id, a workspace's, ...; empty: of none")
    uses: int
    inputTokens: int
    cachedTokens: int
    outputTokens: int
    inputCost: float
    outputCost: float
    totalCost: float
    charged: float = Field(description="what the account paid of it")
    firstAt: datetime | None
    lastAt: datetime | None


class CostsAnswer(AnswerModel):
    by: str
    count: int
    costs: list[CostAnswer]
