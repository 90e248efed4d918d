"""What the node says of a failure: the log has all of it, a client no path of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog

from atoll.domain.errors import AtollError, Internal, NotFound, Unavailable
from atoll.runtimes.local.node_client import NodeClient

TREE = "OSError: [Errno 28] No space left on device: '/srv/atoll/trees/.t.partial'"


@pytest.mark.parametrize(
    ("code", "message", "kind", "told"),
    [
        ("unavailable", TREE, Unavailable, "OSError: [Errno 28] No space left on device"),
        ("internal", "KeyError: '/srv/atoll/x'", Internal, "KeyError"),
        ("not_found", "sandbox s has no workspace at /w", NotFound, "sandbox s has no workspace at /w"),
    ],
)
async def test_an_error_of_the_node_names_no_path_of_the_host(
    tmp_path: Path, code: str, message: str, kind: type[AtollError], told: str
) -> None:
    client = NodeClient(tmp_path, {}, lambda _: None)

    class Node:
        def write(self, line: bytes) -> None:
            answered = client._waiting[json.loads(line)["n"]]  # pyright: ignore[reportPrivateUsage]
            answered.set_result({"error": {"code": code, "message": message}})

    client._writer = Node()  # type: ignore[assignment]
    client._up.set()  # pyright: ignore[reportPrivateUsage]
    with structlog.testing.capture_logs() as logs, pytest.raises(kind) as refused:
        await client.ask("make_tree")
    assert refused.value.message == told
    assert [line["error"] for line in logs] == ([] if told == message else [message])
