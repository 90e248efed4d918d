"""Processes: every program that the sidekick started, its output ring, its stdin, its deadline and its end.

Connections follow processes from an offset; a process lives on without any. Called by `operations`.
"""

from __future__ import annotations

import os
import signal
import time

from atoll.sidekick.loop import GONE, READ, WRITE, Loop
from atoll.sidekick.process import WAITS, Follower, Process
from atoll.sidekick.protocol import STDERR, STDOUT, Refused
from atoll.sidekick.reading import READ_BYTES, pending_bytes, read_some, read_terminal
from atoll.sidekick.spawn import Missing, resize, spawn_on_pipes, spawn_on_pty
from atoll.sidekick.tree import HungUp, alive, alive_below, hang_up, signal_below, signal_tree, waits_for_hangup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.sidekick.identity import Identity

STDIN_BOUND_BYTES = 262_144
MAX_RUNNING = 512
MAX_ENDED = 32
KILL_GRACE_S = 1.0
STDIN_GRACE_S = 30.0
READER_GRACE_S = 5.0
LOOK_AGAIN_S = 0.02
LOOK_AGAIN_MAX_S = 0.25
# Where a terminal gives much of what it can at a time, more is on the way: it is passed on together.
BULK_BYTES = 2_048
GATHER_BYTES = 65_536
GATHER_S = 0.001


class Processes:
    """The table of processes of one sandbox; `oom_count` reads how often its memory limit killed something."""

    def __init__(self, loop: Loop, who: Identity, ring_bytes: int, oom_count: Callable[[], int]) -> None:
        self._loop = loop
        self._who = who
        self._ring_bytes = ring_bytes
        self._oom_count = oom_count
        self._by_id: dict[str, Process] = {}
        self._by_pid: dict[int, Process] = {}
        self._count = 0
        self.last_active = time.monotonic()
        loop.on_child = self._on_child

    # what connections ask for

    def start(
        self,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        *,
        name: str | None = None,
        tty: bool = False,
        cols: int = 80,
        rows: int = 24,
        stdin: bool = False,
        timeout_s: float | None = None,
        label: str = "",
        awaits_reader: bool = False,
    ) -> Process:
        """`awaits_reader`: for READER_GRACE_S no output is dropped before somebody follows; the program waits."""
        if len(self._by_pid) >= MAX_RUNNING:
            raise Refused("unavailable", f"at most {MAX_RUNNING} processes started through the API at once")
        if name is None:
            self._count += 1
            name = f"p{self._count}"
        process = Process(name, argv, tty, self._ring_bytes)
        process.label = label
        process.oom_before = self._oom_count()
        try:
            if tty:
                spawned = spawn_on_pty(self._who, argv, env, cwd, cols=cols, rows=rows)
            else:
                spawned = spawn_on_pipes(self._who, argv, env, cwd, stdin=stdin)
        except Missing as missing:
            return self.fail(name, argv, missing.message, missing.code, label)
        process.pid = spawned.pid
        process.stdin = spawned.stdin
        process.outputs = dict(zip(spawned.outputs, (STDOUT, STDERR), strict=False))
        self._keep(process)
        self._by_pid[process.pid] = process
        self._watch_outputs(process)
        if awaits_reader:
            process.awaited = Follower(0, lambda: None)
            process.followers.append(process.awaited)
            process.timers.append(self._loop.after(READER_GRACE_S, lambda: self._await_no_longer(process)))
        if timeout_s is not None:
            process.timers.append(self._loop.after(timeout_s, lambda: self._time_out(process)))
        return process

    def fail(self, name: str, argv: list[str], message: str, code: int = 126, label: str = "") -> Process:
        """A process that could not be started: it has ended already, and its stderr says why."""
        process = Process(name, argv, False, self._ring_bytes)
        process.label = label
        process.ring.append(STDERR, f"{message}\n".encode())
        process.exit = self._exit(process, code, None)
        self._keep(process)
        return process

    def get(self, name: object) -> Process:
        process = self._by_id.get(name) if isinstance(name, str) else None
        if process is None:
            raise Refused("not_found", f"process {name!r} not found")
        return process

    def list(self) -> list[Process]:
        return list(self._by_id.values())

    def idle_s(self) -> float:
        """Seconds since the last request; 0 while a process that the API started is running. A main process that
        serves waits for others: it counts while somebody follows it."""
        for process in self._by_pid.values():
            readers = (one for one in process.followers if one.offset != WAITS and one is not process.awaited)
            if not process.serves or any(readers):
                return 0.0
        return time.monotonic() - self.last_active

    def follow(self, process: Process, follower: Follower) -> None:
        process.followers.append(follower)
        if follower.offset != WAITS:
            self._await_no_longer(process)
        if process.stdin_timer is not None:
            process.stdin_timer.cancel()
            process.stdin_timer = None

    def unfollow(self, process: Process, follower: Follower) -> None:
        """Detach; the program goes on. A pipe's stdin is closed if nobody comes back; a terminal stays as it is."""
        process.followers.remove(follower)
        if follower.offset != WAITS:
            self.last_active = time.monotonic()
        self.advanced(process)
        if not process.followers and not process.tty and process.stdin >= 0 and process.stdin_timer is None:
            process.stdin_timer = self._loop.after(STDIN_GRACE_S, lambda: self.close_stdin(process))

    def advanced(self, process: Process) -> None:
        """A follower has read on: output that waited for it can be read again."""
        if not process.paused:
            return
        process.paused = False
        if process.status is not None:
            self._drain(process)
        else:
            self._watch_outputs(process)

    def write_stdin(self, process: Process, data: bytes) -> bool:
        """False when the program is behind: send no more until `stdin_ready`."""
        if process.stdin < 0 or process.stdin_closing or process.exit is not None:
            return True
        process.stdin_buffer += data
        self._flush_stdin(process)
        return len(process.stdin_buffer) < STDIN_BOUND_BYTES

    def close_stdin(self, process: Process) -> None:
        if process.stdin < 0 or process.stdin_closing:
            return
        if process.tty:
            self.write_stdin(process, b"\x04")  # a terminal's end of file
            return
        process.stdin_closing = True
        self._flush_stdin(process)

    def resize(self, process: Process, cols: int, rows: int) -> None:
        if process.tty and process.exit is None and process.stdin >= 0:
            resize(process.stdin, cols, rows)

    def signal(self, process: Process, number: int) -> None:
        if process.status is not None or process.exit is not None:
            raise Refused("conflict", f"process {process.id} has ended")
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            raise Refused("conflict", f"process {process.id} has ended") from None

    def stop(self, process: Process, grace_s: float) -> None:
        """TERM to the whole tree now, KILL after the grace to those of it that are still there.

        A shell at a terminal, which ignores TERM, is hung up on once it is all that is left.
        """
        if process.status is not None or process.exit is not None:
            return
        process.family.update(signal_tree(process.pid, signal.SIGTERM))
        self._loop.after(grace_s, lambda: self._kill(process))
        if process.tty:
            self._hang_up_later(process, time.monotonic() + grace_s, LOOK_AGAIN_S, {})

    def stop_all(self, grace_s: float, done: Callable[[], None]) -> None:
        """TERM to everything that runs here, also to what left its starter; KILL after the grace. `done` is called
        once nothing is left, whether or not the last output has been read."""
        family = signal_below(signal.SIGTERM)
        hung_up: HungUp = {}
        kill_at = time.monotonic() + grace_s
        pause_s = LOOK_AGAIN_S

        def look() -> None:
            nonlocal family, pause_s
            self._loop.reap()
            family = alive_below(family)
            if not family and not self._by_pid:
                done()
                return
            left_s = kill_at - time.monotonic()
            hang_up(family, hung_up)
            if left_s <= 0:
                family.update(signal_below(signal.SIGKILL, family))
            self._loop.after(min(pause_s, max(left_s, LOOK_AGAIN_S)), look)
            pause_s = min(2 * pause_s, LOOK_AGAIN_MAX_S)

        look()

    def end_of(self, name: str) -> dict[str, Any] | None:
        """How it ended, also while its last output still waits for a reader; None when it has not, or never was."""
        process = self._by_id.get(name)
        if process is None or (process.exit is None and process.status is None):
            return None
        return process.exit or self._ended(process)

    # the loop's calls

    def _await_no_longer(self, process: Process) -> None:
        if process.awaited is not None:
            process.followers.remove(process.awaited)
            process.awaited = None
            self.advanced(process)

    def _hang_up_later(self, process: Process, until: float, pause_s: float, told: HungUp) -> None:
        def look() -> None:
            if process.status is not None or time.monotonic() >= until:
                return
            if waits_for_hangup(process.pid):  # a shell changes its signals while it reads a line: ask again if not
                hang_up(alive(process.pid, process.family), told)
            self._hang_up_later(process, until, min(2 * pause_s, LOOK_AGAIN_MAX_S), told)

        self._loop.after(pause_s, look)

    def _time_out(self, process: Process) -> None:
        process.timed_out = True
        self.stop(process, KILL_GRACE_S)

    def _kill(self, process: Process) -> None:
        signal_tree(process.pid, signal.SIGKILL, process.family)

    def _on_child(self, pid: int, status: int) -> None:
        process = self._by_pid.pop(pid, None)
        if process is None:
            return  # an orphan that became ours
        process.status = status
        self.last_active = time.monotonic()  # idleness begins when nothing runs any more
        if process.timed_out:
            self._kill(process)
        for fd in process.outputs:
            process.after_end[fd] = pending_bytes(fd)
        self._drain(process)

    def _drain(self, process: Process) -> None:
        """Read what the program had written when it ended; orphans that hold its streams are not waited for."""
        for fd in list(process.outputs):
            while process.after_end.get(fd, 0) > 0:
                got = self._read(process, fd)
                if got is None:
                    process.paused = True
                    return  # `advanced` comes back here
                if got == 0:
                    break
                process.after_end[fd] -= got
            self._close_output(process, fd)
        self._finish(process)

    def _finish(self, process: Process) -> None:
        for timer in process.timers:
            timer.cancel()
        self._close_stdin_now(process)
        process.exit = self._ended(process)
        self._forget_old()
        self._wake(process)

    def _ended(self, process: Process) -> dict[str, Any]:
        assert process.status is not None
        number = os.WTERMSIG(process.status) if os.WIFSIGNALED(process.status) else None
        code = 128 + number if number is not None else os.WEXITSTATUS(process.status)
        return self._exit(process, code, number)

    def _exit(self, process: Process, code: int, number: int | None) -> dict[str, Any]:
        return {
            "code": code,
            "signal": number,
            "timed_out": process.timed_out,
            # a shell passes the end of its child on as its own exit code
            "oom_killed": code == 128 + signal.SIGKILL and self._oom_count() > process.oom_before,
            "duration_s": time.monotonic() - process.started,
        }

    def _watch_outputs(self, process: Process) -> None:
        for fd in process.outputs:
            self._loop.watch(fd, READ, lambda events, fd=fd: self._readable(process, fd, events))

    def _readable(self, process: Process, fd: int, events: int) -> None:
        if fd not in process.outputs:
            return
        got = self._read(process, fd)
        if got is None:
            process.paused = True
            self._loop.forget(fd)
        elif got == 0 and events & GONE:
            if process.tty and process.status is None:
                self._loop.forget(fd)  # nobody has the terminal open right now; its leader still runs
            elif not process.tty:
                self._close_output(process, fd)

    def _read(self, process: Process, fd: int) -> int | None:
        """Bytes read into the ring; 0 at the end or when there are none now; None when a follower is too far behind."""
        drop_below = process.ring.would_drop(READ_BYTES)
        if any(follower.offset < drop_below for follower in process.followers):
            return None
        data = read_terminal(fd) if process.tty else read_some(fd, READ_BYTES)
        if data:
            process.ring.append(process.outputs[fd], data)
            self._tell(process, len(data))
        return len(data)

    def _tell(self, process: Process, size: int) -> None:
        """Wake the followers, or soon, where a terminal is in the middle of a lot."""
        if process.tty and size >= BULK_BYTES and process.ring.end - process.told < GATHER_BYTES:
            if process.gathering is None:
                process.gathering = self._loop.after(GATHER_S, lambda: self._wake(process))
            return
        self._wake(process)

    def _wake(self, process: Process) -> None:
        if process.gathering is not None:
            process.gathering.cancel()
            process.gathering = None
        process.told = process.ring.end
        for follower in list(process.followers):
            follower.wake()

    def _flush_stdin(self, process: Process) -> None:
        fd = process.stdin
        try:
            while process.stdin_buffer:
                del process.stdin_buffer[: os.write(fd, process.stdin_buffer[:READ_BYTES])]
        except BlockingIOError:
            if process.tty:
                self._loop.watch(fd, READ | WRITE, lambda events: self._tty_ready(process, events))
            else:
                self._loop.watch(fd, WRITE, lambda _events: self._flush_stdin(process))
            return
        except OSError:
            self._close_stdin_now(process)  # nobody reads it any more
            return
        if process.tty:
            if fd in process.outputs:
                self._watch_outputs(process)
            return
        self._loop.forget(fd)
        if process.stdin_closing:
            self._close_stdin_now(process)
        self._stdin_ready(process)

    def _tty_ready(self, process: Process, events: int) -> None:
        if events & WRITE:
            self._flush_stdin(process)
            self._stdin_ready(process)
        if events & ~WRITE and process.stdin in process.outputs:
            self._readable(process, process.stdin, events)

    def _stdin_ready(self, process: Process) -> None:
        if len(process.stdin_buffer) < STDIN_BOUND_BYTES:
            for follower in list(process.followers):
                follower.wake()

    def _close_stdin_now(self, process: Process) -> None:
        fd, process.stdin = process.stdin, -1
        process.stdin_buffer.clear()
        if process.stdin_timer is not None:
            process.stdin_timer.cancel()
        if fd >= 0 and fd not in process.outputs and not process.tty:
            self._loop.forget(fd)
            os.close(fd)

    def _close_output(self, process: Process, fd: int) -> None:
        if process.outputs.pop(fd, None) is not None:
            self._loop.forget(fd)
            os.close(fd)
            if process.tty:
                process.stdin = -1

    def _keep(self, process: Process) -> None:
        self._by_id[process.id] = process
        self._forget_old()

    def _forget_old(self) -> None:
        ended = [p for p in self._by_id.values() if p.exit is not None and p.id != "main" and not p.followers]
        for process in ended[: max(0, len(ended) - MAX_ENDED)]:
            del self._by_id[process.id]
