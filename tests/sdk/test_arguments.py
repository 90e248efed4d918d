from __future__ import annotations

from typing import Any

import pytest

from atoll import Sandbox
from atoll.sdk import InvalidInput, Workspace
from atoll.sdk.arguments import refusal
from tests.sdk.fake_workspaces import FakeWorkspaces
from tests.sdk.stand_in import StandIn


@pytest.mark.parametrize(
    ("argument", "value", "right"),
    [
        ("cpus", "2", "a number such as 0.5"),
        ("cpus", float("nan"), "a number such as 0.5"),
        ("cpus", float("inf"), "a number such as 0.5"),
        ("cpus", True, "a number such as 0.5"),
        ("memory_mb", "1g", "a whole number of MiB"),
        ("disk_mb", 1.5, "a whole number of MiB"),
        ("pids", "9", "a whole number"),
        ("inodes", "9", "a whole number"),
        ("timeout", "5s", "a number of seconds above 0"),
        ("timeout", -1, "a number of seconds above 0"),
        ("idle_timeout", "5s", "a number of seconds above 0"),
        ("max_age", 0, "a number of seconds above 0"),
        ("env", ["A=b"], "a dict"),
        ("files", "/etc/passwd", "a dict"),
        ("ports", 8000, "a list of port numbers"),
        ("ports", "80", "a list of port numbers"),
        ("ports", ["80"], "a list of port numbers"),
        ("setup", "apt install x", "a list of lines"),
        ("workspaces", "project", "a list of workspaces"),
        ("command", 5, "a string for the shell or a list"),
        ("command", b"ls", "a string for the shell or a list"),
        ("cwd", 5, "a path in the sandbox"),
        ("name", 5, "a string"),
    ],
)
def test_a_wrong_argument_is_named_with_what_would_be_right(
    server: StandIn, argument: str, value: object, right: str
) -> None:
    wrong: dict[str, Any] = {argument: value}
    with pytest.raises(InvalidInput, match=f"^{argument} must be {right}") as refused:
        Sandbox.create(**wrong)
    assert refused.value.field == argument
    assert not server.routes.boxes


@pytest.mark.parametrize(("argument", "value"), [("timeout", "5s"), ("env", ["A=b"])])
def test_so_is_one_of_a_command(server: StandIn, argument: str, value: object) -> None:
    wrong: dict[str, Any] = {argument: value}
    with Sandbox.create() as sandbox:
        for call in (sandbox.run, sandbox.exec):
            with pytest.raises(InvalidInput, match=f"^{argument} must be"):
                call("true", **wrong)


def test_a_file_is_text_or_bytes(server: StandIn) -> None:
    with pytest.raises(InvalidInput, match=r"^files must have a string or bytes for /a, not 5"):
        Sandbox.create(files={"/a": 5})  # type: ignore[dict-item]


def test_and_one_of_a_workspace(fake: FakeWorkspaces) -> None:
    for argument, value in {"tags": "abc", "quota_bytes": "5g", "quota_inodes": 1.5}.items():
        wrong: dict[str, Any] = {argument: value}
        with pytest.raises(InvalidInput, match=f"^{argument} must be") as refused:
            Workspace.create("one", **wrong)
        assert refused.value.field == argument
    assert not fake.all


def test_patterns_are_no_string(fake: FakeWorkspaces) -> None:
    with pytest.raises(InvalidInput, match=r"^exclude must be a list of patterns"):
        Workspace.create("one").push(".", exclude="*.pyc")


@pytest.mark.parametrize(
    ("field", "message", "argument", "said"),
    [
        ("resources.cpuMillis", "resources.cpuMillis must be within 10..8000", "cpus", "cpus must be within 0.01..8"),
        ("resources.memoryMB", "resources.memoryMB: too much", "memory_mb", "memory_mb: too much"),
        ("timeoutMs", "timeoutMs must be within 100..inf", "timeout", "timeout must be within 0.1..inf"),
        ("quotaBytes", "quotaBytes must be more", "quota_bytes", "quota_bytes must be more"),
        ("image", "no template is called x", "image", "no template is called x"),
        (None, "session is paused", None, "session is paused"),
    ],
)
def test_the_servers_refusals_name_arguments_in_their_units(
    field: str | None, message: str, argument: str | None, said: str
) -> None:
    error = refusal(message, field)
    assert (error.field, error.message) == (argument, said)


def test_ports_expose_unless_a_network_was_named(server: StandIn) -> None:
    for network, sent in ((None, "exposed"), ("none", "none"), ("exposed", "exposed")):
        with Sandbox.create(ports=[8000], network=network) as sandbox:
            assert server.routes.boxes[sandbox.id].body["network"] == sent  # the server refuses ports with none


def test_a_list_is_a_network_and_a_capability_may_have_bounds(server: StandIn) -> None:
    bounded = {"scopes": ["read"], "resources": ["sess_1"]}
    mortal = {"scopes": ["read"], "expires_in": 1.5, "budget_micro_usd": 7}
    told = {"scopes": ["read"], "expiresInMs": 1500, "budgetMicroUsd": 7}
    pairs = ((["read"], {"scopes": ["read"]}), (bounded, bounded), (mortal, told), (None, None))
    for capability, sent in pairs:
        with Sandbox.create(network=["pypi.org"], ports=[8000], capability=capability) as sandbox:
            body = server.routes.boxes[sandbox.id].body
            assert body["network"] == {"allow": ["pypi.org"]}
            assert body.get("capability") == sent
    for never in (0, -1, "soon"):
        with pytest.raises(InvalidInput, match="expires_in"):
            Sandbox.create(capability={"scopes": ["read"], "expires_in": never})
    for wrong in ({"network": [1]}, {"capability": "read"}):
        with pytest.raises(InvalidInput, match="a list"):
            Sandbox.create(**wrong)  # type: ignore[arg-type]


def test_a_newcomer_who_looks_at_the_package_sees_the_client() -> None:
    import atoll

    assert {"Sandbox", "AsyncSandbox", "Secrets", "Workspace", "AtollError", "__version__"} <= set(dir(atoll))
