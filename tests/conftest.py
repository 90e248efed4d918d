"""What tests of several rooms share: the ground on which attacks run, with its oracles; workers that take turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
import pytest_asyncio
import structlog

pytest.register_assert_rewrite("atoll.testing")  # the suites in it say what they compared

from tests.ground import Ground  # noqa: E402
from tests.workers import ByRoom, end_when_terminated, end_workers, is_worker, start_worker, turn  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    _log_plain_tracebacks()
    if is_worker(config):
        start_worker(config)
    else:
        end_when_terminated()


def _log_plain_tracebacks() -> None:
    """As a server logs them: with the values of all variables one takes seconds, of which some tests allow few."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.hookimpl(tryfirst=True)  # before they are ended by force
def pytest_sessionfinish(session: pytest.Session) -> None:
    if not is_worker(session.config):
        end_workers(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByRoom:
    return ByRoom(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the test's timeout
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with turn(item):
        return (yield)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def battleground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """One runtime with alice in it, for all attacks of the session."""
    ground = Ground(tmp_path_factory.mktemp("ground") / "data")
    try:
        await ground.settle()
        yield ground
    finally:
        await asyncio.shield(ground.leave())


@pytest_asyncio.fixture(loop_scope="session")
async def ground(battleground: Ground) -> AsyncIterator[Ground]:
    """The battleground; afterwards every oracle is asked."""
    await battleground.begin()
    yield battleground
    await battleground.end()
