"""A small epoll loop with timers and child reaping: asyncio would cost every idle sandbox megabytes.

The sidekick runs on it inside each sandbox, and the local runtime's node outside.
"""

from __future__ import annotations

import ctypes
import heapq
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR
COMPACT_TIMERS = 64
_PTRACE_DETACH = 17

_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """A call that is due at `at`, on the monotonic clock; `cancel` makes it do nothing."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at


class Loop:
    """Calls back on ready descriptors, due timers and ended children; one thread, no reentrance."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._compact_at = COMPACT_TIMERS
        self._wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.on_child: Callable[[int, int], None] | None = None  # pid, wait status
        self.on_fault: Callable[[Exception], None] = _print_fault
        self.running = True
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        self.watch(self._wake_read, READ, self._woken)

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Call `call(events)` when `fd` is ready; a second call changes what is waited for."""
        if fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watched[fd] = call

    def forget(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed. A second call does nothing."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + delay_s, call)
        if len(self._timers) >= self._compact_at:
            self._compact()
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        while self.running:
            self._run_due()
            if not self.running:  # a timer ended it: nothing may ever come that would wake it
                return
            for fd, events in self._epoll.poll(self._wait_s()):
                call = self._watched.get(fd)
                if call is not None:
                    self._guarded(lambda call=call, events=events: call(events))

    def reap(self) -> None:
        """Collect every ended child; runs on SIGCHLD, and may be called at any time."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                _let_go(pid, os.WSTOPSIG(status))
            elif self.on_child is not None:
                self.on_child(pid, status)

    def _woken(self, _events: int) -> None:
        try:
            os.read(self._wake_read, 512)
        except BlockingIOError:
            pass
        self.reap()

    def _compact(self) -> None:
        """Drop cancelled timers: those of long deadlines would pile up until they are due."""
        self._timers = [timer for timer in self._timers if timer.call is not None]
        heapq.heapify(self._timers)
        self._compact_at = max(COMPACT_TIMERS, 2 * len(self._timers))

    def _wait_s(self) -> float:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        return max(0.0, self._timers[0].at - time.monotonic())

    def _run_due(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].at <= now:
            call = heapq.heappop(self._timers).call
            if call is not None:
                self._guarded(call)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # a fault in one connection must not end all the others
            self.on_fault(error)


def _let_go(pid: int, number: int) -> None:
    """A child that asked its parent to trace it stops for us at every signal; it gets that and is no longer traced."""
    passed_on = 0 if number == signal.SIGTRAP else number  # TRAP only says that it called exec
    _libc.ptrace(_PTRACE_DETACH, pid, None, ctypes.c_void_p(passed_on))


def _ignore(_signal: int, _frame: object) -> None:
    """Only the wake-up byte matters."""


def _print_fault(error: Exception) -> None:
    sys.excepthook(type(error), error, error.__traceback__)
