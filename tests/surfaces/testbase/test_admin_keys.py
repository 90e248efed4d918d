"""`/admin/keys`: made, listed, changed, revoked and deleted as the protocol tells, by the administrator alone."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import Conflict
from atoll.services.keys import Keys
from atoll.services.owner_key import prepare
from atoll.surfaces.testbase import answers
from atoll.testing.memory_records import MemoryRecords
from tests.surfaces.testbase.conftest import ADMIN

NO_KEY = {
    "error": "Unauthorized",
    "message": "API key required. Provide via Authorization header (Bearer token), X-API-Key header, "
    "or api_key query parameter.",
}
WRONG = {"error": "Forbidden", "message": "Admin authentication required"}
UNSET = {"error": "Service Unavailable", "message": "Admin endpoints not configured"}
NOBODYS = "key_0123456789ab"
NOT_FOUND = {"error": "Not Found", "message": "API key not found"}


async def test_a_key_is_made_and_shown_once(office: Any) -> None:
    made = await office.make(
        description="for tests", prefix="tb_user_", keyType="internal", expiresIn=365, metadata={"team": "red"}
    )
    answers.AdminNewKeyAnswer.model_validate(made)
    assert re.fullmatch(r"tb_user_[0-9a-f]{64}", made["key"])
    assert made["keyPrefix"] == made["key"][:8]
    assert (made["keyType"], made["description"], made["metadata"]) == ("internal", "for tests", {"team": "red"})
    assert made["permissions"] == ["execute", "read", "write"]
    assert made["warning"].endswith("Store this key securely - it cannot be retrieved again!")
    assert (await office.call("GET", "/v1/sessions", made["key"])).status_code == 200
    shown = await office.call("GET", f"/admin/keys/{made['id']}")
    assert made["key"] not in shown.text
    answers.AdminKeyUsedAnswer.model_validate(shown.json())


async def test_a13_only_the_hash_and_a_beginning_are_kept(office: Any) -> None:
    made = await office.make()
    assert made["key"].startswith("tb_") and made["expiresAt"] is None
    key = await office.house.records.get_key(made["id"])
    assert key.hash == hashlib.sha256(made["key"].encode()).hexdigest()
    assert made["key"][12:] not in repr(key)


async def test_keys_are_listed_newest_first_in_pages(office: Any) -> None:
    made = [await office.make(name=f"key {n}") for n in range(3)]
    await office.call("POST", f"/admin/keys/{made[0]['id']}/revoke")
    found = (await office.call("GET", "/admin/keys?limit=1&offset=1")).json()
    answers.AdminKeysAnswer.model_validate(found)
    assert (found["total"], found["limit"], found["offset"]) == (3, 1, 1)  # the server's own is one
    assert [key["id"] for key in found["keys"]] == [made[1]["id"]]
    everything = (await office.call("GET", "/admin/keys?includeInactive=true")).json()
    assert [(key["id"], key["isActive"]) for key in everything["keys"]][:3] == [
        (made[2]["id"], True),
        (made[1]["id"], True),
        (made[0]["id"], False),
    ]
    assert (await office.call("GET", "/admin/keys?limit=0")).status_code == 400


async def test_a_key_is_changed_and_what_it_may_do_with_it(office: Any) -> None:
    made = await office.make()
    path = f"/admin/keys/{made['id']}"
    body = {"name": "another", "description": "d", "permissions": ["read"], "metadata": {"a": 1}}
    changed = await office.call("PATCH", path, json=body)
    answers.AdminKeyChangedAnswer.model_validate(changed.json())
    assert body.items() <= changed.json().items()
    refused = await office.call("POST", "/v1/sessions", made["key"], json={"image": "host", "network": "none"})
    assert refused.status_code == 403
    for where, what in ((path, {}), (f"/admin/keys/{NOBODYS}", body)):
        answer = await office.call("PATCH", where, json=what)
        assert (answer.status_code, answer.json()["message"]) == (404, "API key not found or no changes made")


async def test_a07_a_revoked_key_is_refused_at_once_and_a_deleted_one_is_gone(office: Any) -> None:
    made = await office.make()
    assert (await office.call("GET", "/v1/sessions", made["key"])).status_code == 200
    done = await office.call("POST", f"/admin/keys/{made['id']}/revoke")
    assert done.json() == {"success": True, "message": "API key revoked successfully", "id": made["id"]}
    assert (await office.call("GET", "/v1/sessions", made["key"])).status_code == 401
    again = await office.call("POST", f"/admin/keys/{made['id']}/revoke")
    assert again.status_code == 200
    gone = await office.call("DELETE", f"/admin/keys/{made['id']}")
    assert gone.json() == {"success": True, "message": "API key deleted permanently", "id": made["id"]}
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/revoke"), ("GET", "/usage")):
        answer = await office.call(method, f"/admin/keys/{made['id']}{path}")
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    events = await office.house.records.list_events(target=made["id"])
    assert [event.action for event in events] == ["key.created", "key.revoked", "key.deleted"]
    assert {event.actor for event in events} == {"admin"}


async def test_what_a_key_was_used_for_is_told(office: Any) -> None:
    made = await office.make()
    for path in ("/v1/sessions", "/v1/sessions", "/v1/sessions/sess_0123456789ab"):
        await office.call("GET", path, made["key"])
    used = (await office.call("GET", f"/admin/keys/{made['id']}/usage")).json()
    answers.AdminKeyUsageAnswer.model_validate(used)
    assert (used["keyId"], used["name"]) == (made["id"], "a key")
    stats = used["stats"]
    assert (stats["totalRequests"], stats["failedRequests"], stats["successRate"]) == (3, 1, 66.67)
    later = await office.call("GET", f"/admin/keys/{made['id']}/usage?since=2999-01-01T00:00:00Z")
    assert later.json()["stats"]["totalRequests"] == 0
    wrong = await office.call("GET", f"/admin/keys/{made['id']}/usage?since=yesterday")
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (400, "since")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 1}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a", "prefix": "TB_"}, "prefix"),
        ({"name": "a", "prefix": "toolongforit_"}, "prefix"),
        ({"name": "a", "keyType": "owner"}, "keyType"),
        ({"name": "a", "expiresIn": 0}, "expiresIn"),
        ({"name": "a", "expiresIn": 1e9}, "expiresIn"),
        ({"name": "a", "permissions": []}, "permissions"),
        ({"name": "a", "permissions": ["root"]}, "permissions.0"),
        ({"name": "a", "metadata": {"a": "x" * 5000}}, "metadata"),
        ({"name": "a", "rate": {"perSecond": 0, "burst": 1}}, "rate.perSecond"),
        ({"name": "a", "unknown": 1}, "unknown"),
    ],
)
async def test_a_wrong_body_is_told_its_field(office: Any, body: dict[str, Any], field: str) -> None:
    answer = await office.call("POST", "/admin/keys", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == "Bad Request"
    assert answer.json()["errors"][0]["field"] == field


async def test_a_list_with_admin_in_it_opens_nothing_here(office: Any) -> None:
    made = await office.make(permissions=["execute", "read", "write", "admin"], keyType="internal")
    assert made["permissions"] == ["admin", "execute", "read", "write"]
    answer = await office.call("GET", "/admin/keys", made["key"])
    assert (answer.status_code, answer.json()) == (403, WRONG)


ROUTES = [
    ("POST", "/admin/keys"),
    ("GET", "/admin/keys"),
    *((method, f"/admin/keys/{NOBODYS}") for method in ("GET", "PATCH", "DELETE")),
    ("POST", f"/admin/keys/{NOBODYS}/revoke"),
    ("GET", f"/admin/keys/{NOBODYS}/usage"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a03_it_is_opened_by_the_administrators_key_alone(office: Any, method: str, path: str) -> None:
    standard = (await office.make())["key"]
    owner = office.house.app.owner_key.text
    refused = await office.call(method, path, None, json={"name": "x"})
    assert (refused.status_code, refused.json()) == (401, NO_KEY)
    for key in (standard, owner, "adm_wrong", ADMIN[:-1], ADMIN + "0"):
        answer = await office.call(method, path, key, json={"name": "x"})
        assert (answer.status_code, answer.json()) == (403, WRONG), key
    by_header = {"x-admin-key": ADMIN}
    assert (await office.call(method, path, None, json={"name": "x"}, headers=by_header)).status_code in (200, 201, 404)
    assert (await office.call(method, path, standard, json={"name": "x"}, headers=by_header)).status_code != 403
    wrong = await office.call(method, path, None, headers={"x-admin-key": standard})
    assert (wrong.status_code, wrong.json()) == (403, WRONG)


async def test_without_the_setting_it_is_closed(open_office: Any) -> None:
    async with open_office(admin={}) as office:
        for key in (ADMIN, office.house.app.owner_key.text):
            answer = await office.call("GET", "/admin/keys", key)
            assert (answer.status_code, answer.json()) == (503, UNSET)
        assert (await office.call("GET", "/admin/keys", None)).json() == NO_KEY


async def test_the_administrators_key_opens_the_other_surfaces_too_and_the_admin_header_does_not(office: Any) -> None:
    assert (await office.call("GET", "/v1/sessions")).status_code == 200
    assert (await office.call("GET", "/v1/sessions", None, headers={"x-admin-key": ADMIN})).status_code == 401


async def test_a_standard_key_with_a_rate_of_its_own(office: Any) -> None:
    made = await office.make(rate={"perSecond": 0.01, "burst": 2})
    assert made["rate"] == {"perSecond": 0.01, "burst": 2}
    found = [await office.call("GET", "/v1/sessions", made["key"]) for _ in range(3)]
    assert [answer.status_code for answer in found] == [200, 200, 429]
    assert found[0].headers["ratelimit-policy"] == "2;w=200"
    raised = await office.call("PATCH", f"/admin/keys/{made['id']}", json={"rate": {"perSecond": 50, "burst": 90}})
    assert raised.json()["rate"] == {"perSecond": 50, "burst": 90}
    assert (await office.call("GET", "/v1/sessions", made["key"])).status_code == 200


async def test_a12_a_server_that_others_reach_starts_with_the_administrators_key_alone(tmp_path: Path) -> None:
    file = tmp_path / "owner.key"
    with pytest.raises(Conflict, match=r"admin\.api_key"):
        await prepare(Keys(MemoryRecords()), file, may_mint=False)
    assert await prepare(Keys(MemoryRecords()), file, may_mint=False, administered=True) is None
    assert not file.exists()
