"""Bills as Testbase shows them: accounts, records of usage, transactions and costs, in dollars; `billing.py` asks it.

The columns of the sheets are the names of the JSON fields.
"""

from __future__ import annotations

from typing import Any

from atoll.domain.bill import TaskBill
from atoll.domain.ids import KEY_ID
from atoll.domain.ledger import BillingAccount, Transfer
from atoll.domain.money import usd
from atoll.domain.task import TaskState
from atoll.services.billing import UsageStats, UseTotal
from atoll.surfaces.money import dollars

Json = dict[str, Any]

ENDPOINT = "/execute"
STATUS = {TaskState.SUCCEEDED: "success", TaskState.FAILED: "error", TaskState.CANCELLED: "cancelled"}
FORGOTTEN = "unknown"
USAGE_COLUMNS = (
    "id", "apiKeyId", "sessionId", "workspaceId", "timestamp", "inputTokens", "outputTokens", "totalTokens",
    "inputCost", "outputCost", "totalCost", "model", "duration", "status", "endpoint",
)  # fmt: skip
TRANSACTION_COLUMNS = ("id", "apiKeyId", "type", "amount", "balanceAfter", "description", "timestamp")
COST_COLUMNS = (
    "name", "uses", "inputTokens", "cachedTokens", "outputTokens", "inputCost", "outputCost", "totalCost", "charged",
    "firstAt", "lastAt",
)  # fmt: skip


def shown_account(account: BillingAccount, key: str) -> Json:
    """`key` is what the account was asked for by."""
    return {
        "id": account.id,
        "apiKeyId": key,
        "creditsBalance": usd(account.balance),
        "totalSpent": usd(account.spent),
        "dailyLimit": dollars(account.daily_limit),
        "monthlyLimit": dollars(account.monthly_limit),
        "createdAt": account.created_at,
        "updatedAt": account.updated_at,
    }


def shown_stats(stats: UsageStats) -> Json:
    tokens, tasks = stats.total, stats.tasks
    rate = 100 * tasks.succeeded / tasks.total if tasks.total else 0
    return {
        "totalRequests": tasks.total,
        "totalTokens": tokens.input_tokens + tokens.output_tokens,
        "inputTokens": tokens.input_tokens,
        "outputTokens": tokens.output_tokens,
        "totalCost": usd(stats.cost),
        "inputCost": usd(tokens.input_cost),
        "outputCost": usd(tokens.output_cost),
        "successfulRequests": tasks.succeeded,
        "failedRequests": tasks.failed,
        "successRate": round(rate, 2),
    }


def shown_task(bill: TaskBill, account: str, workspace: str) -> Json:
    """`workspace` is what clients call it."""
    return {
        "id": bill.task,
        "apiKeyId": bill.credential if KEY_ID.match(bill.credential) else account,
        "sessionId": bill.thread,
        "workspaceId": workspace,
        "timestamp": bill.at,
        "inputTokens": bill.input_tokens,
        "outputTokens": bill.output_tokens,
        "totalTokens": bill.input_tokens + bill.output_tokens,
        "inputCost": usd(bill.input_cost),
        "outputCost": usd(bill.output_cost),
        "totalCost": usd(bill.input_cost + bill.output_cost + bill.other_cost),
        "model": f"{bill.agent or 'codex'}-computer",  # Testbase's word for what ran
        "duration": None if bill.duration_s is None else round(1000 * bill.duration_s),
        "status": FORGOTTEN if bill.state is None else STATUS[bill.state],
        "endpoint": ENDPOINT,
    }


def shown_transfer(transfer: Transfer, key: str) -> Json:
    amount = transfer.amount if transfer.credit == transfer.account else -transfer.amount
    return {
        "id": str(transfer.id),
        "apiKeyId": key,
        "type": transfer.kind.value,
        "amount": usd(amount),
        "balanceAfter": usd(transfer.balance_after),
        "description": transfer.description or None,
        "metadata": _metadata(transfer) or None,
        "timestamp": transfer.at,
    }


def _metadata(transfer: Transfer) -> Json:
    found = dict(transfer.detail)
    return found | {"earned": usd(found["earned"])} if "earned" in found else found  # in dollars, as all amounts


def shown_workspace(total: UseTotal, workspace: str) -> Json:
    return {
        "workspaceId": workspace,
        "totalCost": usd(total.input_cost + total.output_cost),
        "totalTokens": total.input_tokens + total.output_tokens,
        "requestCount": total.tasks,
    }


def shown_cost(total: UseTotal) -> Json:
    return {
        "name": total.name,
        "uses": total.uses,
        "inputTokens": total.input_tokens,
        "cachedTokens": total.cached_tokens,
        "outputTokens": total.output_tokens,
        "inputCost": usd(total.input_cost),
        "outputCost": usd(total.output_cost),
        "totalCost": usd(total.input_cost + total.output_cost),
        "charged": usd(total.charged),
        "firstAt": total.first_at,
        "lastAt": total.last_at,
    }
