"""A small process that does one round for each line it gets; the floor and the peers run in such processes."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
ROUND_TIMEOUT_S = 30.0


class Rounds:
    """`python -m module`, asked for rounds one at a time; closing it lets it clean up after itself."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-m", module],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def once(self, line: str = "") -> list[float]:
        """The milliseconds that the process answers; RuntimeError when it ended or hangs."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], ROUND_TIMEOUT_S)
        answer = self.process.stdout.readline() if ready else b""
        if not answer:
            raise RuntimeError(f"{self.module} gave no answer to {line!r}")
        return [float(word) for word in answer.split()]

    def __enter__(self) -> Rounds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(ROUND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
