"""Every operation of `/billing`, declared in one table."""

from __future__ import annotations

from dataclasses import replace

from atoll.services.billing import Billing
from atoll.services.billing_admin import BillingAdmin
from atoll.settings import Settings
from atoll.surfaces.operation import Answer, Once, Operation
from atoll.surfaces.sheets import CSV, FORMAT
from atoll.surfaces.testbase import billing_answers as answers
from atoll.surfaces.testbase.billing import (
    BY,
    FROM,
    GROUP,
    KIND,
    LIMIT,
    OFFSET,
    SANDBOX,
    TASK,
    TO,
    TYPE,
    WORKSPACE,
    BillingHandlers,
)
from atoll.surfaces.testbase.billing_admin import (
    ALL_BY,
    INTERNAL,
    OF,
    BillingAdminHandlers,
    CreditsBody,
    SpendingLimitsBody,
)
from atoll.surfaces.testbase.errors import TestbaseError
from atoll.surfaces.testbase.routes import ADMIN_HEADER

BILLING = "/billing"
ADMIN = BILLING + "/admin"
ACCOUNT = ADMIN + "/{key}"
WINDOW = (FROM, TO)
PAGE = (LIMIT, OFFSET)
OPENED_BY = (
    "For administrators: the setting `admin.api_key` (`Authorization: Bearer` or `X-Admin-Key`), an owner key, or a "
    "user with that flag. The path names a key, whose owner's account is meant, a user or a group."
)


def _sheet(text: str) -> Answer:
    return Answer(200, text, None, CSV)


def billing_operations(billing: Billing) -> list[Operation]:
    """What everybody may ask about themselves."""
    of = BillingHandlers(billing)
    declared = [
        Operation(
            "GET", BILLING + "/account", of.account, "getBillingAccount", "Your account: balance, spent, limits",
            answers=(Answer(200, "the account", answers.BillingAccountAnswer),), errors=(503,),
        ),
        Operation(
            "GET", BILLING + "/stats", of.stats, "getBillingStats", "What you used in all",
            answers=(Answer(200, "sums", answers.BillingStatsAnswer),), parameters=WINDOW, errors=(503,),
        ),
        Operation(
            "GET", BILLING + "/usage", of.usage, "listUsage", "What each task used, newest first",
            answers=(Answer(200, "a record for each task that ended", answers.UsageAnswer), _sheet("all of them")),
            parameters=(*WINDOW, *PAGE, FORMAT), errors=(503,),
        ),
        Operation(
            "GET", BILLING + "/transactions", of.transactions, "listTransactions",
            "What was given, taken and charged, newest first",
            answers=(Answer(200, "a page of them", answers.TransactionsAnswer), _sheet("all of them")),
            parameters=(*WINDOW, TYPE, *PAGE, FORMAT), errors=(503,),
        ),
        Operation(
            "GET", BILLING + "/workspaces", of.workspaces, "listWorkspaceCosts",
            "What was used by workspace, the dearest first",
            answers=(Answer(200, "one for each workspace", answers.WorkspaceCostsAnswer),),
            parameters=(*WINDOW, *PAGE), errors=(503,),
        ),
        Operation(
            "GET", BILLING + "/costs", of.costs, "listCosts",
            "What was used by task, sandbox, workspace, group, model, kind or day",
            answers=(Answer(200, "sums, the dearest first", answers.CostsAnswer), _sheet("all of them")),
            parameters=(BY, *WINDOW, TASK, SANDBOX, WORKSPACE, GROUP, KIND, *PAGE, FORMAT), errors=(404, 503),
        ),
    ]  # fmt: skip
    return [replace(one, tag="billing", error=TestbaseError) for one in declared]


def billing_admin_operations(admin: BillingAdmin, billing: Billing, settings: Settings) -> list[Operation]:
    """What only administrators may ask for."""
    of = BillingAdminHandlers(admin, billing, settings)
    changed = (Answer(200, "the account as it is now", answers.AccountChangedAnswer),)
    declared = [
        Operation(
            "GET", ADMIN + "/usage", of.usage, "adminListCosts", "What everybody used, charged or not",
            answers=(Answer(200, "sums, the dearest first", answers.CostsAnswer), _sheet("all of them")),
            parameters=(ALL_BY, OF, INTERNAL, *WINDOW, TASK, SANDBOX, WORKSPACE, GROUP, KIND, *PAGE, FORMAT),
            errors=(404, 503),
        ),
        Operation(
            "GET", ACCOUNT + "/account", of.account, "adminGetBillingAccount", "Somebody's account",
            answers=(Answer(200, "the account", answers.BillingAccountAnswer),), errors=(404, 503),
        ),
        Operation(
            "GET", ACCOUNT + "/stats", of.stats, "adminGetBillingStats", "What somebody used in all",
            answers=(Answer(200, "sums", answers.BillingStatsAnswer),), parameters=WINDOW, errors=(404, 503),
        ),
        Operation(
            "POST", ACCOUNT + "/credits", of.credits, "adminGiveCredits",
            "Give credits; with an amount below 0 take them back",
            answers=changed, body=CreditsBody, errors=(400, 402, 404, 409, 413, 503), once=Once.MADE,
        ),
        Operation(
            "POST", ACCOUNT + "/refund", of.refund, "adminRefund", "Give back what was charged",
            answers=changed, body=CreditsBody, errors=(400, 404, 409, 413, 503), once=Once.MADE,
        ),
        Operation(
            "POST", ACCOUNT + "/limits", of.limits, "adminSetSpendingLimits",
            "Bound what an account spends in a day and in a month",
            answers=changed, body=SpendingLimitsBody, errors=(400, 404, 413, 503),
        ),
    ]  # fmt: skip
    common = {"tag": "billing", "description": OPENED_BY, "error": TestbaseError, "header": ADMIN_HEADER}
    return [replace(one, **common) for one in declared]
