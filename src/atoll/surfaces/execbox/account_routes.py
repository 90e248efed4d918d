"""The operations of accounts in the execbox dialect, declared in one table; app.py makes the routes of it."""

from __future__ import annotations

from dataclasses import replace

from atoll.services.account_keys import AccountKeys
from atoll.services.accounts import Accounts
from atoll.services.signup import Signup
from atoll.settings import Settings
from atoll.surfaces.execbox import account_answers as answers
from atoll.surfaces.execbox.account import AccountHandlers, SignupHandlers
from atoll.surfaces.execbox.account_requests import (
    DAYS,
    EXPORT_DAYS,
    FORMAT,
    AccountKeyBody,
    AccountKeyChangeBody,
    AccountLimitsBody,
    QuotaRequestBody,
    WaitlistBody,
)
from atoll.surfaces.operation import Answer, Operation

ACCOUNT = "/v1/account"
USAGE, LIMITS, KEYS = ACCOUNT + "/usage", ACCOUNT + "/limits", ACCOUNT + "/keys"
KEY = KEYS + "/{key}"
SIGNUP_RATES = ("signup",)


def account_operations(accounts: Accounts, keys: AccountKeys, settings: Settings) -> list[Operation]:
    """One's own account."""
    of = AccountHandlers(accounts, keys, settings)
    key = Answer(200, "the key", answers.AccountKeyAnswer)
    declared = [
        Operation(
            "GET", ACCOUNT, of.get, "getAccount", "Your account",
            answers=(Answer(200, "the account", answers.AccountAnswer),), errors=(503,),
        ),
        Operation(
            "GET", USAGE, of.usage, "getAccountUsage", "What you use of what you may",
            answers=(Answer(200, "what is used", answers.AccountUsageAnswer),), errors=(503,),
        ),
        Operation(
            "GET", USAGE + "/enhanced", of.enhanced, "getAccountUsageHistory", "The same by the hour and by the day",
            answers=(Answer(200, "what is used, and an estimate of its cost", answers.EnhancedUsageAnswer),),
            parameters=(DAYS,), errors=(400, 503),
        ),
        Operation(
            "GET", USAGE + "/export", of.export, "exportAccountUsage", "Your days as a table",
            answers=(
                Answer(200, "the days", {"type": "array", "items": {"$ref": "#/components/schemas/DayAnswer"}}),
                Answer(200, "with format=csv", None, "text/csv"),
            ),
            parameters=(EXPORT_DAYS, FORMAT), errors=(400, 503),
        ),
        Operation(
            "GET", LIMITS, of.limits, "getAccountLimits", "Your limits",
            answers=(Answer(200, "the limits", answers.AccountLimitsAnswer),), errors=(503,),
        ),
        Operation(
            "PUT", LIMITS, of.set_limits, "setAccountLimits", "Set limits of your own, below those of your plan",
            answers=(Answer(200, "what they are now", answers.AccountLimitsAnswer),),
            body=AccountLimitsBody, errors=(400, 409, 413, 503),
        ),
        Operation(
            "GET", KEYS, of.list_keys, "listAccountKeys", "The keys of your account, oldest first",
            answers=(Answer(200, "the keys", answers.AccountKeysAnswer),), errors=(503,),
        ),
        Operation(
            "POST", KEYS, of.create_key, "createAccountKey", "Make a key, no wider than the one that asks",
            answers=(Answer(201, "the key", answers.AccountNewKeyAnswer),),
            body=AccountKeyBody, errors=(400, 413, 503),
        ),
        Operation("GET", KEY, of.get_key, "getAccountKey", "Look at a key", answers=(key,), errors=(404, 503)),
        Operation(
            "PUT", KEY, of.change_key, "changeAccountKey", "Change a key",
            answers=(key,), body=AccountKeyChangeBody, errors=(400, 404, 409, 413, 503),
        ),
        Operation(
            "DELETE", KEY, of.delete_key, "deleteAccountKey", "End a key; the primary one stays",
            answers=(Answer(204, "it opens nothing any more"),), errors=(400, 404, 409, 503),
        ),
        Operation(
            "POST", KEY + "/rotate", of.rotate_key, "rotateAccountKey", "Give a key another text",
            answers=(Answer(200, "the key", answers.AccountNewKeyAnswer),), errors=(404, 409, 503),
        ),
    ]  # fmt: skip
    return [replace(one, tag="account") for one in declared]


def signup_operations(signup: Signup, settings: Settings) -> list[Operation]:
    """What strangers may ask for, where the settings say so."""
    of = SignupHandlers(signup, settings)
    return [
        Operation(
            "POST", "/v1/waitlist", of.join, "joinWaitlist", "Get a key of the plan free",
            answers=(Answer(201, "the key", answers.WaitlistAnswer),), body=WaitlistBody,
            errors=(400, 409, 413, 503), public=True, tag="account", rates=SIGNUP_RATES,
        ),
        Operation(
            "POST", "/v1/quota-requests", of.ask, "requestQuota", "Ask the operator for more",
            answers=(Answer(201, "that it is kept", answers.QuotaRequestAnswer),), body=QuotaRequestBody,
            errors=(400, 413, 503), public=True, tag="account", rates=SIGNUP_RATES,
        ),
    ]  # fmt: skip
