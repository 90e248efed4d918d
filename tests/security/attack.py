"""Run the programs of attacks/ inside a sandbox, or under the control launcher that keeps none of the rules."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ground import Tenant

FOLDER = Path(__file__).parent / "attacks"
# namespaces and nothing else: the tenant is the host's root, with every capability, on the host's files
CONTROL = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What succeeded, with what it got; what was refused, with the error's name."""

    exposed: dict[str, str]
    refused: dict[str, str]


def program(name: str) -> str:
    """The attack in one text, with its prelude as a module."""
    return (
        "import sys, types\n"
        "prelude = types.ModuleType('prelude')\n"
        f"exec({(FOLDER / 'prelude.py').read_text()!r}, prelude.__dict__)\n"
        "sys.modules['prelude'] = prelude\n"
        f"exec({(FOLDER / f'{name}.py').read_text()!r})\n"
        "prelude.tell()\n"
    )


async def attack(tenant: Tenant, name: str, **given: Any) -> Verdict:
    """Run it in a sandbox, as a tenant would."""
    result = await tenant.inside.run(_spec(given), stdin=program(name).encode())
    assert result.exit.code == 0, (result.exit, result.stderr.decode(errors="replace")[-2000:])
    return Verdict(**json.loads(result.stdout))


def control(name: str, **given: Any) -> Verdict:
    """Run it under the launcher that fails: the battery must see what is open there."""
    done = subprocess.run(
        [*CONTROL, sys.executable, "-I", "-", json.dumps(given)],
        input=program(name).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return Verdict(**json.loads(done.stdout))


def _spec(given: dict[str, Any]) -> Any:
    from atoll.domain.process import ProcessSpec

    return ProcessSpec(("python3", "-I", "-", json.dumps(given)), stdin=True, timeout_s=60)
