"""`POST /sandboxes/{id}/preview`: a port of a sandbox gets an address, which the preview router has too."""

from __future__ import annotations

from typing import Any


async def test_a_port_of_a_sandbox_gets_an_address(house: Any) -> None:
    sandbox = (await house.call("POST", "/sandboxes", json={})).json()["sandbox_id"]
    shown = await house.call("POST", f"/sandboxes/{sandbox}/preview", json={"port": 3000})
    assert shown.status_code == 200, shown.text
    listed = (await house.call("GET", "/preview/list")).json()
    ((name, one),) = listed.items()
    assert name.endswith(":3000") and one["preview_url"] == shown.json()["url"]
    assert shown.json()["url"].startswith(house.url)
    again = await house.call("POST", f"/sandboxes/{sandbox}/preview", json={"port": 3000})
    assert again.json() == shown.json()
    said = {"sandbox_id": sandbox, "port": 3000, "public": True, "metadata": {"of": "mine"}}
    assert (await house.call("POST", "/preview/register", json=said)).status_code == 200
    assert (await house.call("POST", f"/sandboxes/{sandbox}/preview", json={"port": 3000})).json() == shown.json()
    kept = (await house.call("GET", "/preview/list")).json()[name]
    assert (kept["public"], kept["metadata"]) == (True, {"of": "mine"})


async def test_nobody_elses_sandbox_gets_one(house: Any) -> None:
    sandbox = (await house.call("POST", "/sandboxes", json={})).json()["sandbox_id"]
    refused = await house.call("POST", f"/sandboxes/{sandbox}/preview", "sk_" + "b0" * 32, json={"port": 3000})
    assert (refused.status_code, refused.json()) == (404, {"detail": "Sandbox not found"})
    assert (await house.call("POST", f"/sandboxes/{sandbox}/preview", json={"port": 0})).status_code == 422
