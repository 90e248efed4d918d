"""Tree: signal a program and everything that came from it, as far as parents and sessions tell."""

from __future__ import annotations

import os
import signal

ROUNDS = 8


def signal_tree(leader: int, number: int) -> None:
    """Send to the leader, its session and all descendants; KILL goes round until nobody new appears."""
    seen: set[int] = set()
    family = {leader}
    for _ in range(ROUNDS):
        family = _family(leader, family | seen)
        new = family - seen
        if not new:
            return
        for pid in new:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                pass
        seen |= new
        if number != signal.SIGKILL:
            return


def _family(leader: int, known: set[int]) -> set[int]:
    parents: dict[int, int] = {}
    members = {leader}
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
        parents[pid] = parent
        if session == leader or pid in known:
            members.add(pid)
    grew = True
    while grew:
        grew = False
        for pid, parent in parents.items():
            if parent in members and pid not in members:
                members.add(pid)
                grew = True
    return {pid for pid in members if pid in parents or pid == leader}
