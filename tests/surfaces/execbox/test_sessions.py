"""Sessions over HTTP: what the protocol promises of making, looking at and ending them."""

from __future__ import annotations

from typing import Any


async def test_a_session_is_made_used_and_killed(house: Any) -> None:
    session = await house.create(command=["sleep", "60"])
    result = await house.exec(session["id"], ["echo", "hi"])
    killed = await house.call("DELETE", f"/v1/sessions/{session['id']}")
    assert session["status"] == "running"
    assert (result["exitCode"], result["stdout"]) == (0, "hi\n")
    assert (killed.status_code, killed.json()) == (200, {"status": "killed"})
