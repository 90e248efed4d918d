"""The loop of a background job: one process of the sandbox, which runs the command and waits, for as long as it lives.

It goes on while the server is away, and tells on its standard error how often the command ran and how it ended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RUN_S = 10  # that one run may take
KILL_AFTER_S = 1
REPORT_BYTES = 64  # of one line of the report
# $1: seconds between runs; the rest is the command. What that writes is the job's standard output. A run that is out of
# time is told by 124, or 137 when it had to be killed.
SCRIPT = f"""# atoll job
every=$1; shift
runs=0; failed=0
while :; do
  timeout -k {KILL_AFTER_S} {RUN_S} "$@" 2>&1 </dev/null
  code=$?
  runs=$((runs + 1))
  [ "$code" = 0 ] || failed=$((failed + 1))
  echo "$runs $failed $code" >&2
  sleep "$every"
done"""
_REPORT = re.compile(rb"^(\d{1,18}) (\d{1,18}) (\d{1,3})\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Report:
    """How often the command ended, how often with an exit code other than 0, and the last one."""

    runs: int = 0
    failed: int = 0
    last_exit_code: int | None = None


def argv_of(argv: tuple[str, ...], interval_s: int) -> tuple[str, ...]:
    """The process of a job that runs `argv`."""
    return ("sh", "-c", SCRIPT, "job", str(interval_s), *argv)


def report_of(told: bytes) -> Report | None:
    """The newest report in what the loop wrote; None when there is none. It runs where the tenant is."""
    told_so_far = list(_REPORT.finditer(told))
    return Report(*map(int, told_so_far[-1].groups())) if told_so_far else None
