"""`atoll mcp --print-config`: it names a key where the one of this machine does not do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.conftest import Atoll

KEY = "ATOLL_API_KEY"


@pytest.mark.parametrize(
    ("url", "key", "named"),
    [
        ("http://127.0.0.1:8080", "", False),
        ("http://127.0.0.1:8080", "sk_secret", True),
        ("https://atoll.example.com", "", True),
    ],
    ids=["own", "key", "elsewhere"],
)
def test_a_key_is_named_where_it_is_needed(alone: Callable[..., Atoll], url: str, key: str, named: bool) -> None:
    atoll = alone(ATOLL_URL=url, **({KEY: key} if key else {}))
    done = atoll("mcp", "--print-config", "claude")
    assert done.returncode == 0, done.stderr
    assert (KEY in done.stdout, "sk_secret" in done.stdout) == (named, False)
    assert (atoll.environment["ATOLL_DATA"] in done.stdout) is not named  # where this machine's own key lies
