"""Tree: signal a program and everything that came from it, as far as parents and sessions tell.

What a background job has started tells it by its environment too, into whatever session it went.
"""

from __future__ import annotations

import os
import signal
import time

JOB = "ATOLL_JOB"  # a variable of all that a job runs; its value is the job's own
ROUNDS = 8
ENVIRONMENT_BYTES = 131_072  # of one process: how far the variable is looked for
HANG_UP_AGAIN_S = 1.0
_TERM, _TTOU, _HUP = (1 << (number - 1) for number in (signal.SIGTERM, signal.SIGTTOU, signal.SIGHUP))

Family = dict[int, int]  # pid -> when it started, in clock ticks: together they name one process
HungUp = dict[tuple[int, int], float]  # (pid, when it started) -> when it was last told, by the monotonic clock


def signal_tree(leader: int, number: int, known: Family | None = None) -> Family:
    """Send to the leader, its session, all descendants and all of its job; KILL goes round until nobody new appears.

    Returns whom it found: given as `known` to a later call, those are found again when their parents have ended.
    """
    return _signal_round(leader, number, known or {}, spare=0)


def signal_below(number: int, known: Family | None = None) -> Family:
    """The same for everything that came from this process, but not itself."""
    return _signal_round(os.getpid(), number, known or {}, spare=os.getpid())


def alive(leader: int, known: Family) -> Family:
    """Those of `known` that still run, and all others that came from them or from the leader."""
    return _family(leader, known)


def alive_below(known: Family) -> Family:
    """The same for everything that came from this process, but not itself."""
    family = _family(os.getpid(), known)
    family.pop(os.getpid(), None)
    return family


def hang_up(family: Family, told: HungUp) -> None:
    """HUP, as when a terminal is closed, if only shells are left that ignore TERM because they are interactive.

    While anything else is left they are let be: a shell that hangs up takes its jobs along, also those that are just
    ending in good order. `told` is who got one: they get another after a second, since a shell that notes the first
    just before it waits for a key heeds it at the next signal only.
    """
    if not all(waits_for_hangup(pid) for pid in family):
        return
    now = time.monotonic()
    for process in family.items():
        if now - told.get(process, -HANG_UP_AGAIN_S) >= HANG_UP_AGAIN_S:
            _send(process[0], signal.SIGHUP)
            _send(process[0], signal.SIGCONT)  # one that is stopped would not notice
            told[process] = now


def _signal_round(leader: int, number: int, known: Family, *, spare: int) -> Family:
    reached: Family = {}
    for _ in range(ROUNDS):
        family = _family(leader, {**known, **reached})
        new = {pid: started for pid, started in family.items() if pid not in reached and pid != spare}
        for pid in new:
            _send(pid, number)
            if number == signal.SIGTERM:
                _send(pid, signal.SIGCONT)  # one that is stopped would not notice
        reached.update(new)
        if not new or number != signal.SIGKILL:
            break
    return reached


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def waits_for_hangup(pid: int) -> bool:
    """It ignores TERM and what job control sends, but not HUP: an interactive shell."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            ignored = next(int(line.split()[1], 16) for line in file if line.startswith(b"SigIgn:"))
    except (OSError, StopIteration):
        return True  # it ends just now
    return ignored & (_TERM | _TTOU | _HUP) == _TERM | _TTOU


def _family(leader: int, known: Family) -> Family:
    started: Family = {}
    parents: dict[int, int] = {}
    members: set[int] = set()
    job = _job_of(leader)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        pid, state, parent, session = int(name), fields[0], int(fields[1]), int(fields[3])
        if state == b"Z":
            continue
        parents[pid], started[pid] = parent, int(fields[19])
        came = known[pid] == started[pid] if pid in known else leader in (pid, session)
        if came or (job is not None and _job_of(pid) == job):
            members.add(pid)
    grew = True
    while grew:
        grew = False
        for pid, parent in parents.items():
            if parent in members and pid not in members:
                members.add(pid)
                grew = True
    return {pid: started[pid] for pid in members}


def _job_of(pid: int) -> bytes | None:
    """What the variable of a job says in the environment that a process began with."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read(ENVIRONMENT_BYTES).split(b"\0")
    except OSError:
        return None  # it has ended, or is none of ours
    name = JOB.encode() + b"="
    return next((one for one in variables if one.startswith(name)), None)
