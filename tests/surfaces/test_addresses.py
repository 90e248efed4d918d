"""Addresses that answers give: that of a sandbox's daemon is one that programs can reach."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("domain", ["localhost", "box.localhost"])
async def test_below_localhost_a_daemon_is_reached_by_path_since_only_browsers_resolve_such_names(
    open_house: Any, domain: str
) -> None:
    async with open_house(previews={"domain": domain}) as house:
        made = (await house.call("POST", "/v1/sandboxes", json={})).json()["data"]
        assert made["url"] == f"{house.url}/sb/{made['sandboxId']}"
        assert (await house.call("GET", f"/sb/{made['sandboxId']}/health", None)).status_code == 200


async def test_below_another_domain_it_has_a_name(open_house: Any) -> None:
    async with open_house(previews={"domain": "box.example"}) as house:
        made = (await house.call("POST", "/v1/sandboxes", json={})).json()["data"]
        assert made["url"].startswith(f"http://{made['sandboxId'].replace('_', '-')}.box.example:")
