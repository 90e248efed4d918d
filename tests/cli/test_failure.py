"""What a command says when it fails."""

from __future__ import annotations

import pytest

from atoll.cli import run
from atoll.cli.failure import explain
from atoll.domain.errors import AtollError, Conflict, InvalidInput, Unauthenticated

TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("credential", "said", "not_said"),
    [(TOKEN, "your login has expired or was ended", "key of this server"), ("sk_1", "key of this server", "login")],
)
def test_a_login_that_is_over_is_no_wrong_key(
    credential: str, said: str, not_said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATOLL_API_KEY", credential)
    assert explain(Unauthenticated("A valid API key is required"), 125) == 125
    printed = capsys.readouterr().err
    assert said in printed and not_said not in printed


@pytest.mark.parametrize(
    ("field", "option"), [("network", "--network"), ("network.allow", "--allow"), ("ports.0.container", "--publish")]
)
def test_what_is_wrong_is_called_as_it_was_typed(field: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    explain(InvalidInput(f"{field}: no such thing", field=field))
    assert capsys.readouterr().err == f"atoll: {option}: no such thing\n"


class Sandbox:
    """One that cannot be ended, for a reason."""

    def __init__(self, error: AtollError) -> None:
        self._error = error

    async def kill(self, *, remove: bool) -> None:
        raise self._error


@pytest.mark.parametrize(("error", "lines"), [(Unauthenticated("no"), 0), (Conflict("not now"), 1)])
async def test_what_ends_the_run_and_its_clearing_up_alike_is_said_once(
    error: AtollError, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox: object = Sandbox(error)
    await run._end(sandbox, True, said=Unauthenticated("no"))  # pyright: ignore
    assert len(capsys.readouterr().err.splitlines()) == lines
