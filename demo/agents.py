"""The demo's scene of an agent: a task in a sandbox, what it costs, and the proof that no money was lost or made.

The model is a STAND-IN that follows a script, and is called so wherever it shows: no key and no internet are needed.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

from rich.markup import escape
from rich.panel import Panel

from atoll import Agent, CloudRuntime, run
from atoll.adapters import make_installs
from atoll.cli.agent_progress import lines_of
from atoll.domain.data_folder import DataFolder, default_data_folder
from atoll.sdk import RunEvent, RunResult
from atoll.settings import load
from bench.server import Server, free_port
from demo.people import atoll, call
from demo.steps import Steps

ASK = Path(__file__).with_name("ask.py")
STORES = (Path(__file__).parents[1] / "build" / "agents", DataFolder(default_data_folder()).agents)
CREDIT = 5  # dollars
USAGE = "usage: input=6548 output=108"  # of each call: at the default prices 0.10308 dollars
FOR_CODEX = f"""Write a program that says hello, and run it.
{USAGE}
run: echo 'print("hello from a sandbox")' > hello.py && python3 hello.py
say: I wrote hello.py and ran it."""
FOR_ASK = f"{USAGE}\nsay: print('hello from a sandbox')"
HOLDS = "SELECT amount, posted FROM ledger_holds WHERE state = 'posted' ORDER BY created_at"
_VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ATOLL_AGENTS__STORE")


@contextmanager
def stand_in() -> Iterator[bool]:
    """The model's stand-in beside the demo, and the environment that makes servers use it. Whether Codex is there."""
    port = free_port()
    kept = {name: os.environ.pop(name) for name in _VARIABLES if name in os.environ}
    os.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
    store = next((store for store in STORES if _has_codex(store)), None)
    if store is not None:
        os.environ["ATOLL_AGENTS__STORE"] = str(store)
    argv = [sys.executable, "-m", "atoll.testing.model_stand_in", "--port", str(port)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True) as model:
        try:
            yield store is not None
        finally:
            model.terminate()
            for name in _VARIABLES:
                os.environ.pop(name, None)
            os.environ.update(kept)


def agents(steps: Steps, up: Server, user: str, token: str, *, codex: bool) -> None:
    """One task of an agent, on a folder, which the user pays for."""
    with steps.step(f"give the user {CREDIT} dollars"):
        call(f"{up.url}/billing/admin/{user}/credits", up.api_key, {"amount": CREDIT})
    if not codex:
        steps.console.print("[yellow]--[/]  Codex is not installed (atoll agent install codex): a small script instead")
    with tempfile.TemporaryDirectory(prefix="atoll-demo-") as temporary:
        folder = Path(temporary, "project")
        folder.mkdir()
        os.environ["XDG_STATE_HOME"] = temporary  # what is remembered of the sync goes with the folder
        agent = Agent(
            runtime=CloudRuntime(token),
            workspace=folder,
            agent="codex" if codex else "command",
            command=None if codex else ["python3", "-c", ASK.read_text()],
        )
        with steps.step(f"let {'Codex' if codex else 'it'} do a task (its model is a scripted stand-in)"):
            result = run(agent, FOR_CODEX if codex else FOR_ASK)
        made = (folder / "hello.py").read_text()
    did = "\n".join(line for event in result.events for line in told(event))
    text = f"{did}\n\nhello.py: {made.strip()}"
    steps.console.print(
        Panel(escape(text), title="what the agent did; NO real model: a scripted stand-in", expand=False)
    )
    with steps.step("prove that the ledger adds up: atoll ledger verify"):
        proof = atoll("ledger", "verify")
    steps.console.print(Panel(escape(bill(up, result) + "\n" + proof.strip()), title="what it cost", expand=False))


def told(event: RunEvent) -> list[str]:
    """What is shown of an event."""
    return [event.text.rstrip()] if event.type in ("message", "output") else lines_of(event)


def bill(up: Server, result: RunResult) -> str:
    """The bill, compared with the price list and with what is left."""
    usage, billing = result.usage, result.billing
    price = (usage.input_tokens * 15 + usage.output_tokens * 45) / Decimal(1_000_000)
    if billing is None or usage.total_cost != price or billing.balance_after != CREDIT - price:
        raise RuntimeError(f"the bill is wrong: {usage}, {billing}, not {price}")
    with closing(sqlite3.connect(f"file:{up.data / 'atoll.db'}?mode=ro", uri=True)) as database:
        holds = list(database.execute(HOLDS))
    lines = [f"held before the call ${usd(held)}, charged after it ${usd(posted)}" for held, posted in holds]
    lines.append(f"{usage.input_tokens} tokens in, {usage.output_tokens} out: ${usage.total_cost}")
    lines.append(f"balance ${CREDIT} - ${usage.total_cost} = ${billing.balance_after}")
    return "\n".join(lines)


def usd(micro: int) -> Decimal:
    return (Decimal(micro) / 1_000_000).normalize()


def _has_codex(store: Path) -> bool:
    return store.is_dir() and make_installs(load(overrides={"agents.store": str(store)})).installed("codex") is not None
