"""Background jobs: they repeat, are counted and bounded, and outlive the server; nobody else's are found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, QuotaExceeded
from atoll.services.jobs.jobs import INTERVAL_S_MAX, Jobs
from atoll.services.jobs.loop import Report, report_of
from tests.services.conftest import ALICE, BOB, READER, House, house, until

__all__ = ["house"]


async def test_a_job_is_known_by_its_label_after_a_restart_and_tells_how_often_it_ran(house: House) -> None:
    sandbox = await house.create()
    jobs = Jobs(house.sandboxes)
    job_id = await jobs.start(ALICE, sandbox.id, ("sh", "-c", "flood 70000; exit 3"), interval_s=60)
    await until(lambda: house.host.sandboxes[sandbox.id].processes["p1"].ring.end > 70_000)
    await house.restart()
    jobs = Jobs(house.sandboxes)
    (found,) = await jobs.list(READER, sandbox.id)
    assert (found.id, found.report) == (job_id, Report(1, 1, 3))
    await jobs.stop(ALICE, sandbox.id, job_id)
    assert await jobs.list(ALICE, sandbox.id) == []
    with pytest.raises(NotFound, match="job not found"):
        await jobs.stop(ALICE, sandbox.id, job_id)


async def test_a_report_that_much_output_has_pushed_far_back_is_found_all_the_same(house: House) -> None:
    sandbox = await house.create()
    jobs = Jobs(house.sandboxes)
    script = "cat /tmp/second && flood 200000 && sleep 60; touch /tmp/second"
    await jobs.start(ALICE, sandbox.id, ("sh", "-c", script), interval_s=1)
    await until(lambda: house.host.sandboxes[sandbox.id].processes["p1"].ring.end > 200_000)
    assert [one.report for one in await jobs.list(ALICE, sandbox.id)] == [Report(1, 0, 0)]


async def test_how_many_and_how_often_is_bounded(house: House) -> None:
    house.limits = replace(house.limits, jobs_per_sandbox=1)
    await house.restart()
    sandbox = await house.create()
    jobs = Jobs(house.sandboxes)
    for interval_s in (0, -1, INTERVAL_S_MAX + 1):
        with pytest.raises(InvalidInput, match="interval"):
            await jobs.start(ALICE, sandbox.id, ("true",), interval_s=interval_s)
    job_id = await jobs.start(ALICE, sandbox.id, ("true",), interval_s=60)
    with pytest.raises(QuotaExceeded, match="1 background jobs"):
        await jobs.start(ALICE, sandbox.id, ("true",), interval_s=60)
    await jobs.stop(ALICE, sandbox.id, job_id)
    await jobs.start(ALICE, sandbox.id, ("true",), interval_s=60)


async def test_only_who_may_execute_starts_and_stops_and_others_find_no_sandbox(house: House) -> None:
    sandbox = await house.create()
    jobs = Jobs(house.sandboxes)
    job_id = await jobs.start(ALICE, sandbox.id, ("true",), interval_s=60)
    with pytest.raises(Forbidden):
        await jobs.start(READER, sandbox.id, ("true",), interval_s=60)
    with pytest.raises(Forbidden):
        await jobs.stop(READER, sandbox.id, job_id)
    for call in (jobs.list(BOB, sandbox.id), jobs.stop(BOB, sandbox.id, job_id)):
        with pytest.raises(NotFound, match="session not found"):
            await call
    assert len(await jobs.list(ALICE, sandbox.id)) == 1


@pytest.mark.parametrize(
    ("told", "report"),
    [
        (b"", None),
        (b"nonsense\n1 2\n", None),
        (b"12 3 0\n13 4 137\n", Report(13, 4, 137)),
        (b"13 4 137\nsh: no", Report(13, 4, 137)),
        (b"9" * 40 + b" 1 1\n", None),
        (b"1 0 9999\n", None),
    ],
)
def test_what_a_tenants_loop_says_is_read_with_care(told: bytes, report: Report | None) -> None:
    assert report_of(told) == report
