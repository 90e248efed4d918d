"""The states of a sandbox: what follows what, and which of them hold something of the host."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from atoll.domain.errors import Conflict
from atoll.domain.sandbox import ENDED, LIVE, TRANSITIONS, Sandbox, SandboxSpec, SandboxState

S = SandboxState
MADE = datetime(2026, 3, 1, tzinfo=UTC)


def sandbox(state: SandboxState) -> Sandbox:
    return Sandbox("sess_0", "key_0", SandboxSpec(), "local", MADE, state=state, started_at=MADE)


def test_every_state_has_its_transitions_and_only_what_was_ended_on_purpose_has_none() -> None:
    assert set(TRANSITIONS) == set(SandboxState)
    assert {state for state in SandboxState if not TRANSITIONS[state]} == {S.STOPPED, S.KILLED}
    for state in set(SandboxState) - ENDED:
        assert {S.KILLED, S.FAILED} <= TRANSITIONS[state], f"{state} cannot be killed, or fail"


def test_only_a_suspended_one_is_neither_live_nor_ended() -> None:
    assert set(SandboxState) - LIVE - ENDED == {S.SUSPENDED}
    assert not LIVE & ENDED
    for state in SandboxState:
        assert (sandbox(state).live, sandbox(state).ended) == (state in LIVE, state in ENDED)


def test_a_suspension_goes_through_or_is_taken_back_and_a_resumed_one_is_made_again() -> None:
    suspended = sandbox(S.RUNNING).to(S.SUSPENDING).to(S.SUSPENDED)
    assert suspended.ended_at is None
    again = suspended.to(S.RESUMING).to(S.RUNNING)
    assert again.started_at == MADE
    assert sandbox(S.SUSPENDING).to(S.RUNNING).live
    for state in (S.RUNNING, S.SUSPENDING, S.BUILDING, S.STOPPING):
        with pytest.raises(Conflict):
            suspended.to(state)
