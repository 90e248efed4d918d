"""Deadlines: what the node makes of a sidekick's answers, and of one that gives none."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atoll.runtimes.local import deadlines as module
from atoll.runtimes.local import idle
from atoll.runtimes.local.box import Box
from atoll.runtimes.local.deadlines import Deadlines
from atoll.sidekick import protocol as wire

PATIENCE_S = 15.0


class World:
    """A clock that jumps from timer to timer, and a sidekick that says what the test wants; None is no answer."""

    def __init__(self, idle_s: float) -> None:
        self.now = 1000.0
        self.says: float | None = None
        self.asked = 0
        self.ended: list[str] = []
        self._timers: list[Any] = []
        self.box = Box("key", "folder", 0, "none")
        self.box.limits = {"idle_s": idle_s}
        self.deadlines = Deadlines(self, lambda _box, reason: self.ended.append(reason))  # type: ignore[arg-type]

    def after(self, delay_s: float, call: Any) -> SimpleNamespace:
        timer = SimpleNamespace(at=self.now + delay_s, call=call)
        timer.cancel = lambda: self._timers.remove(timer) if timer in self._timers else None
        self._timers.append(timer)
        return timer

    def ask(self, _loop: Any, _folder: str, then: Any) -> None:
        self.asked += 1
        if self.says is None:
            self.after(PATIENCE_S, lambda: then(self.says))
        else:
            then(self.says)

    def go(self, seconds: float) -> None:
        until = self.now + seconds
        while self._timers and not self.ended:
            first = min(self._timers, key=lambda timer: timer.at)
            if first.at > until:
                break
            self._timers.remove(first)
            self.now = first.at
            first.call()
        if not self.ended:
            self.now = until


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(idle_s: float) -> World:
        world = World(idle_s)
        monkeypatch.setattr(module, "boot_now", lambda: world.now)
        monkeypatch.setattr(module, "ask_idle", world.ask)
        world.deadlines.arm(world.box, 0.0)
        return world

    return make


def test_one_that_does_not_answer_is_idle(world: Any) -> None:
    short = world(5.0)
    short.go(60)
    assert (short.ended, short.now) == (["idle"], 1000.0 + PATIENCE_S)
    long = world(600.0)
    long.go(590)
    assert long.ended == []
    long.go(60)
    assert long.ended == ["idle"]


def test_an_answer_begins_the_silence_anew(world: Any) -> None:
    slow = world(60.0)
    slow.go(50)
    slow.says = 0.0
    slow.go(20)
    slow.says = None
    slow.go(110)
    assert slow.ended == []
    slow.go(60)
    assert slow.ended == ["idle"]


def test_one_that_is_frozen_is_not_silent(world: Any) -> None:
    paused = world(5.0)
    paused.go(1)
    paused.box.frozen = True
    paused.go(1000)
    assert paused.ended == []
    paused.box.frozen, paused.box.awake_since, paused.says = False, paused.now, 0.0
    paused.go(1000)
    assert paused.ended == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        wire.frame(wire.RESULT),
        wire.frame(wire.RESULT, b"\xff"),
        wire.frame(wire.RESULT, b"[" * 4000),
        *(wire.json_frame(wire.RESULT, value) for value in (None, [], {}, {"idle_s": "x"}, {"idle_s": -1})),
        wire.frame(wire.RESULT, b'{"idle_s": NaN}'),
        wire.frame(wire.RESULT, b'{"idle_s": 1' + b"0" * 400 + b"}"),
        wire.json_frame(wire.ERROR, {"code": "internal", "message": ""}),
    ],
)
def test_nonsense_is_no_answer(answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, ready = [], []
    timer = SimpleNamespace(cancel=lambda: None)
    loop = SimpleNamespace(
        after=lambda _delay_s, _call: timer, watch=lambda _fd, _on, call: ready.append(call), forget=lambda _fd: None
    )
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sidekick")
        listener.listen()
        idle.ask_idle(loop, str(tmp_path), told.append)  # type: ignore[arg-type]
        sidekick, _ = listener.accept()
        with sidekick:
            assert json.loads(sidekick.recv(100)[wire.HEADER.size :]) == {"op": "idle"}
            sidekick.sendall(answer)
    ready[0]()
    assert told == [None]
