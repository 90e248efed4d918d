"""Spares: taken when they fit and are ready, made again when there is time, never more than wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from atoll.runtimes.local import spares as module
from atoll.runtimes.local.spares import SHAPE, Spares


@dataclass
class Clock:
    """Timers that are called when the test says so."""

    waiting: list[Any] = field(default_factory=list)

    def after(self, _delay_s: float, call: Any) -> SimpleNamespace:
        timer = SimpleNamespace(call=call, cancel=lambda: None)
        self.waiting.append(timer)
        return timer

    def run(self, rounds: int = 50) -> None:
        for _ in range(rounds):
            if not self.waiting:
                return
            self.waiting.pop(0).call()


def shape(**changes: Any) -> dict[str, Any]:
    base = dict.fromkeys(SHAPE, 1) | {"network": "none", "layers": []}
    return {**base, "count": 3, "when_asked": False, **changes}


@pytest.fixture(autouse=True)
def a_quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_machine_is_busy", lambda: False)


def spares(*wanted: dict[str, Any], fails: int = 0) -> tuple[Spares, Clock, list[Any]]:
    clock, made = Clock(), list[Any]()
    failures = iter(range(fails))

    def make(_shape: dict[str, Any]) -> Any:
        if next(failures, None) is not None:
            raise OSError("no room")
        made.append(SimpleNamespace(birth=SimpleNamespace(prepared=True), shape=_shape))
        return made[-1]

    return Spares(clock, list(wanted), make), clock, made  # type: ignore[arg-type]


def test_as_many_as_wanted_are_made_and_no_more() -> None:
    ready, clock, made = spares(shape(), shape(network="outgoing", count=2))
    ready.refill_soon()
    ready.refill_soon()
    clock.run()
    assert len(made) == len(ready.all()) == 5


@pytest.mark.parametrize("name", SHAPE)
def test_only_one_of_the_same_shape_is_taken(name: str) -> None:
    ready, clock, made = spares(shape())
    ready.refill_soon()
    clock.run()
    assert ready.take(shape(**{name: "another"})) is None
    assert ready.take(shape()) is made[0]
    assert not any(box is made[0] for box in ready.all())


def test_one_that_is_not_ready_is_not_taken() -> None:
    ready, clock, made = spares(shape(count=2))
    ready.refill_soon()
    clock.run()
    made[0].birth.prepared = False
    assert ready.take(shape()) is made[1]
    assert ready.take(shape()) is None


def test_one_that_ended_is_forgotten_and_replaced() -> None:
    ready, clock, made = spares(shape(count=1))
    ready.refill_soon()
    clock.run()
    ready.forget(made[0])
    assert ready.all() == []
    ready.refill_soon()
    clock.run()
    assert ready.all() == [made[1]]


def test_what_cannot_be_made_is_tried_again_later() -> None:
    ready, clock, made = spares(shape(count=2), fails=3)
    ready.refill_soon()
    clock.run()
    assert len(made) == 2


def test_a_shape_that_nobody_asked_for_waits_for_the_first() -> None:
    ready, clock, made = spares(shape(network="outgoing", when_asked=True))
    ready.refill_soon()
    clock.run()
    assert made == []
    assert ready.take(shape(network="outgoing")) is None
    ready.refill_soon()
    clock.run()
    assert len(made) == 3


def test_a_busy_machine_delays_them_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_machine_is_busy", lambda: True)
    ready, clock, made = spares(shape(count=1))
    ready.refill_soon()
    clock.run(module.PATIENCE)
    assert made == []
    clock.run(2)
    assert len(made) == 1


def test_none_is_made_once_it_stops() -> None:
    ready, clock, made = spares(shape())
    ready.refill_soon()
    ready.stop()
    clock.run()
    ready.refill_soon()
    clock.run()
    assert made == []
