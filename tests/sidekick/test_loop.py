"""The loop: timers in order and none left over, children told once, faults of one call no end of the others."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator

import pytest

from atoll.sidekick.loop import COMPACT_TIMERS, READ, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    """In the main thread, with its signals given back afterwards."""
    handler = signal.getsignal(signal.SIGCHLD)
    wakeup = signal.set_wakeup_fd(-1)
    loop = Loop()
    yield loop
    written = signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGCHLD, handler)
    os.close(written)
    loop.forget(loop._wake_read)
    os.close(loop._wake_read)
    loop._epoll.close()


def run_for(loop: Loop, seconds: float) -> None:
    loop.after(seconds, lambda: setattr(loop, "running", False))
    loop.running = True
    loop.run()


def test_timers_are_called_in_order_and_cancelled_ones_not(loop: Loop) -> None:
    called: list[str] = []
    loop.after(0.03, lambda: called.append("late"))
    loop.after(0.01, lambda: called.append("early"))
    loop.after(0.02, lambda: called.append("never")).cancel()
    run_for(loop, 0.05)
    assert called == ["early", "late"]


def test_a_timer_may_set_and_cancel_others(loop: Loop) -> None:
    called: list[str] = []
    doomed = loop.after(0.02, lambda: called.append("doomed"))

    def first() -> None:
        doomed.cancel()
        loop.after(0.005, lambda: called.append("second"))

    loop.after(0.005, first)
    run_for(loop, 0.05)
    assert called == ["second"]


def test_cancelled_timers_of_long_deadlines_do_not_pile_up(loop: Loop) -> None:
    kept = [loop.after(3600, lambda: None) for _ in range(10)]
    for _ in range(10_000):
        loop.after(3600, lambda: None).cancel()
    assert len(loop._timers) <= 2 * COMPACT_TIMERS
    assert sum(timer.call is not None for timer in loop._timers) == len(kept)


def test_a_fault_in_one_call_is_told_and_does_not_end_the_others(loop: Loop) -> None:
    faults: list[Exception] = []
    called: list[int] = []
    loop.on_fault = faults.append
    loop.after(0.0, lambda: 1 // 0)  # type: ignore[arg-type]
    loop.after(0.01, lambda: called.append(1))
    run_for(loop, 0.03)
    assert [type(fault) for fault in faults] == [ZeroDivisionError]
    assert called == [1]


def test_a_descriptor_that_is_forgotten_in_a_call_is_not_called_any_more(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(3)]
    called: list[int] = []

    def one(number: int) -> None:
        called.append(number)
        for read_end, _ in pipes:
            loop.forget(read_end)

    for number, (read_end, write_end) in enumerate(pipes):
        os.write(write_end, b"x")
        loop.watch(read_end, READ, lambda _events, number=number: one(number))
    run_for(loop, 0.03)
    assert len(called) == 1
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_every_child_is_told_once_however_many_end_together(loop: Loop) -> None:
    told: list[tuple[int, int]] = []
    loop.on_child = lambda pid, status: told.append((pid, os.WEXITSTATUS(status)))
    pids = [os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {n}"], {}) for n in range(40)]
    deadline = time.monotonic() + 5
    while len(told) < 40 and time.monotonic() < deadline:
        run_for(loop, 0.02)
    assert sorted(told) == sorted(zip(pids, range(40), strict=True))


def test_a_child_that_asks_to_be_traced_is_let_go_and_not_taken_for_ended(loop: Loop) -> None:
    told: list[tuple[int, int]] = []
    loop.on_child = lambda pid, status: told.append((pid, status))
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).ptrace(0, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)  # a stop for its tracer: nobody else is told, and nobody continues it
        time.sleep(0.05)
        os._exit(7)
    run_for(loop, 0.2)
    if not told:
        os.kill(pid, signal.SIGCONT)
        run_for(loop, 0.3)
    assert told == [(pid, 7 << 8)]
