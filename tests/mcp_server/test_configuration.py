"""What `--print-config` prints: a key's name where one is needed, and nothing of it on one's own machine."""

from __future__ import annotations

import json

import pytest

from atoll.mcp.configuration import CLIENTS, KEY_VARIABLE, configuration

ENV = {"ATOLL_URL": "http://127.0.0.1:8080", "ATOLL_DATA": "/a folder"}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_key_is_named_only_where_one_is_needed(client: str) -> None:
    for needs_key in (True, False):
        printed = configuration(client, command="atoll", env=ENV, needs_key=needs_key)
        assert (KEY_VARIABLE in printed) is needs_key
        assert "http://127.0.0.1:8080" in printed and "/a folder" in printed
    assert KEY_VARIABLE in configuration(client, command="atoll", env=ENV, needs_key=False, http="http://h/mcp")


def test_what_most_clients_read_is_whole() -> None:
    own = json.loads(configuration("json", command="atoll", env=ENV, needs_key=False))["mcpServers"]["atoll"]
    assert own == {"command": "atoll", "args": ["mcp"], "env": ENV}
    told = configuration("claude", command="atoll", env=ENV, needs_key=False)
    assert "--env ATOLL_DATA='/a folder' -- atoll mcp" in told
