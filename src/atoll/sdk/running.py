"""`run(agent, task)` and `run_streamed(agent, task)`: an Agent waits, an AsyncAgent is awaited."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, overload

from atoll.sdk._async.agents import AsyncAgent, AsyncRunStream
from atoll.sdk._sync.agents import Agent, RunStream
from atoll.sdk.agent_requests import Money
from atoll.sdk.task_values import RunResult


@overload
def run(
    agent: Agent,
    task: str,
    *,
    session_id: str | None = None,
    budget: Money | None = None,
    timeout: float | None = None,
) -> RunResult: ...
@overload
def run(
    agent: AsyncAgent,
    task: str,
    *,
    session_id: str | None = None,
    budget: Money | None = None,
    timeout: float | None = None,
) -> Coroutine[Any, Any, RunResult]: ...
def run(
    agent: Agent | AsyncAgent,
    task: str,
    *,
    session_id: str | None = None,
    budget: Money | None = None,
    timeout: float | None = None,
) -> RunResult | Coroutine[Any, Any, RunResult]:
    """Let an agent do a task: `result = run(agent, "...")`, or `await run(...)` of an AsyncAgent. `Agent.run` has the
    errors."""
    return agent.run(task, session_id=session_id, budget=budget, timeout=timeout)


@overload
def run_streamed(
    agent: Agent,
    task: str,
    *,
    session_id: str | None = None,
    budget: Money | None = None,
    timeout: float | None = None,
) -> RunStream: ...
@overload
def run_streamed(
    agent: AsyncAgent,
    task: str,
    *,
    session_id: str | None = None,
    budget: Money | None = None,
    timeout: float | None = None,
) -> AsyncRunStream: ...
def run_streamed(
    agent: Agent | AsyncAgent,
    task: str,
    *,
    session_id: str | None = None,
    budget: Money | None = None,
    timeout: float | None = None,
) -> RunStream | AsyncRunStream:
    """The same with events as they come: iterate what this returns, then read its `result`."""
    return agent.run_streamed(task, session_id=session_id, budget=budget, timeout=timeout)
