"""`atoll marketplace` against a server: publish, find, run, rate, take back."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import Atoll


@pytest.mark.timeout(180)
def test_a_worker_is_published_found_run_rated_and_taken_back(alone: Callable[..., Atoll]) -> None:
    atoll = alone(ATOLL_RUNTIME="fake")
    other = json.loads(atoll("keys", "create", "--name", "other", "--json").stdout)
    assert atoll("up", "--detach", "--port", "0", timeout=60).returncode == 0
    theirs = Atoll(atoll.environment | {"ATOLL_API_KEY": other["key"]})
    said = theirs("marketplace", "publish", "greet", "--description", "Says hi", "--tag", "text", "--", "echo", "hi")
    worker, name = said.stdout.split("  ")
    assert worker.startswith("wkr_") and name == "greet 1.0.0\n"
    (found,) = json.loads(atoll("marketplace", "search", "GREET", "--tag", "text", "--json").stdout)
    assert (found["id"], found["command"], found["author"]) == (worker, ["echo", "hi"], other["id"])
    ran = atoll("marketplace", "run", worker, "there")
    assert (ran.returncode, ran.stdout) == (0, "hi there\n")
    unrated = [line.split() for line in atoll("marketplace", "show", worker).stdout.splitlines()]
    assert ["rating", "none"] in unrated
    assert atoll("marketplace", "rate", worker, "4").returncode == 0
    shown = atoll("marketplace", "show", worker).stdout
    assert "4.0 of 5 (1 rating)" in shown and "free" in shown and "echo hi" in shown
    again = theirs("marketplace", "publish", "greet", "--price", "0.25", "--template", "host", "--", "cat")
    assert again.stdout == f"{worker}  greet 1.0.1\n"
    assert atoll("marketplace", "search", "--max-price", "0.2").stderr.strip() == "no workers"
    dear = atoll("marketplace", "run", "--max-price", "0.2", worker)
    assert dear.returncode != 0 and "costs 0.25 dollars, more than max_price (0.2)" in dear.stderr
    third = json.loads(atoll("keys", "create", "--name", "third", "--json").stdout)
    payer = Atoll(atoll.environment | {"ATOLL_API_KEY": third["key"]})
    unasked = payer("marketplace", "run", worker)
    assert unasked.returncode == 2 and unasked.stderr.startswith("atoll: --max-price: a run of greet 1.0.1 costs 0.25 ")
    poor = payer("marketplace", "run", "--max-price", "0.25", worker)
    assert (poor.returncode, poor.stderr) == (
        1, "atoll: A run of greet 1.0.1 costs 0.25 dollars, and your balance is 0: an administrator adds credits\n",
    )  # fmt: skip
    assert atoll("billing", "credit", third["id"], "0.3").returncode == 0
    assert payer("marketplace", "run", "--max-price", "0.25", worker).returncode == 0
    own = payer("billing", "transactions", "--json")
    bill = [(one["type"], one["amount"], one["balanceAfter"]) for one in json.loads(own.stdout)]
    assert bill == [("usage_deduction", -0.25, 0.05), ("credit_purchase", 0.3, 0.3)]
    assert "-0.25" in payer("billing", "transactions", "--type", "usage_deduction", "--limit", "1").stdout
    assert len(payer("billing", "transactions", "--csv").stdout.splitlines()) == 3
    assert payer("billing", "usage").stderr == "no task has ended\n"
    ran = atoll("marketplace", "run", "--input", "-", "--json", worker, stdin="text")
    assert json.loads(ran.stdout)["charged"] == 0  # whoever is internal is never charged
    assert theirs("marketplace", "unpublish", worker).stdout == f"{worker}\n"
    assert atoll("marketplace", "search").stderr.strip() == "no workers"
