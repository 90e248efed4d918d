"""Every operation of the Testbase dialect, declared in one table; app.py makes the routes and the document of it."""

from __future__ import annotations

from dataclasses import replace

from atoll.services.key_admin import KeyAdmin
from atoll.settings import Settings
from atoll.surfaces.operation import Answer, Operation
from atoll.surfaces.testbase import answers
from atoll.surfaces.testbase.errors import TestbaseError
from atoll.surfaces.testbase.keys import (
    INCLUDE_INACTIVE,
    LIMIT,
    OFFSET,
    SINCE,
    AdminKeyBody,
    AdminKeyChangeBody,
    KeyAdminHandlers,
)

KEYS = "/admin/keys"
KEY = KEYS + "/{key}"
ADMIN_HEADER = b"x-admin-key"
OPENED_BY = "Opened by the setting `admin.api_key` alone: `Authorization: Bearer` or `X-Admin-Key`."


def admin_operations(admin: KeyAdmin, settings: Settings) -> list[Operation]:
    """What only the administrator may ask for."""
    of = KeyAdminHandlers(admin, settings)
    declared = [
        Operation(
            "POST", KEYS, of.create, "adminCreateKey", "Make a key",
            answers=(Answer(201, "the key", answers.AdminNewKeyAnswer),),
            body=AdminKeyBody, errors=(400, 413, 503),
        ),
        Operation(
            "GET", KEYS, of.list, "adminListKeys", "List keys, newest first",
            answers=(Answer(200, "a page of them", answers.AdminKeysAnswer),),
            parameters=(LIMIT, OFFSET, INCLUDE_INACTIVE), errors=(400, 503),
        ),
        Operation(
            "GET", KEY, of.get, "adminGetKey", "Look at a key",
            answers=(Answer(200, "the key", answers.AdminKeyUsedAnswer),), errors=(404, 503),
        ),
        Operation(
            "PATCH", KEY, of.change, "adminChangeKey", "Change a key",
            answers=(Answer(200, "what it is now", answers.AdminKeyChangedAnswer),),
            body=AdminKeyChangeBody, errors=(400, 404, 409, 413, 503),
        ),
        Operation(
            "DELETE", KEY, of.delete, "adminDeleteKey", "Delete a key for good, with what it was used for",
            answers=(Answer(200, "that it is gone", answers.AdminKeyDoneAnswer),), errors=(404, 409, 503),
        ),
        Operation(
            "POST", KEY + "/revoke", of.revoke, "adminRevokeKey", "End a key; it stays in the records",
            answers=(Answer(200, "that it opens nothing any more", answers.AdminKeyDoneAnswer),),
            errors=(404, 409, 503),
        ),
        Operation(
            "GET", KEY + "/usage", of.usage, "adminGetKeyUsage", "What a key was used for",
            answers=(Answer(200, "how often, and when last", answers.AdminKeyUsageAnswer),),
            parameters=(SINCE,), errors=(400, 404, 503),
        ),
    ]  # fmt: skip
    common = {"tag": "admin", "description": OPENED_BY, "error": TestbaseError, "header": ADMIN_HEADER}
    return [replace(one, **common) for one in declared]
