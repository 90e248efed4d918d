"""Moments on the wire: whatever a file or a sandbox says, an answer can tell it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from atoll.surfaces import moments
from atoll.surfaces.moments import LAST_S, moment, moment_of_ns

BEGIN, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("said", [LAST_S, LAST_S + 1, 2**63, 1e300, float("inf")])
def test_what_lies_beyond_the_year_9999_is_its_last_second(said: float) -> None:
    assert moment(said) == END


@pytest.mark.parametrize("said", [0, -1, -(2**63), -1e300, float("-inf"), float("nan")])
def test_what_lies_before_1970_or_is_no_time_is_1970(said: float) -> None:
    assert moment(said) == BEGIN


def test_nanoseconds_keep_their_microseconds_and_have_the_same_bounds() -> None:
    assert moment_of_ns(1_700_000_000_123_456_789).microsecond == 123_456
    assert (moment_of_ns(2**70), moment_of_ns(-(2**70))) == (END, BEGIN)


def test_no_surface_makes_a_moment_of_a_number_in_another_way() -> None:
    surfaces = Path(moments.__file__).parent
    calls = [str(path) for path in surfaces.rglob("*.py") if "fromtimestamp(" in path.read_text()]
    assert calls == [moments.__file__]
