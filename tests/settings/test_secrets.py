"""Secrets that stand in the settings: weak ones are refused without being repeated (A12), the seeds' names are read."""

from __future__ import annotations

import pytest

from atoll.settings import Settings, SettingsError, load

GOOD = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
WEAK = (
    "short",
    "0123456789abcdef" * 17,
    GOOD[:-1] + "é",
    GOOD[:-2] + " a",
    "change-me-change-me-change-me-change-me",
    "your-admin-key-for-api-management-0123",
    "REPLACE_ME_REPLACE_ME_REPLACE_ME_1234567",
)


@pytest.mark.parametrize("weak", WEAK)
def test_a12_a_weak_administrators_key_is_refused(weak: str) -> None:
    with pytest.raises(SettingsError, match=r"admin\.api_key: ") as refused:
        load(environ={"ADMIN_API_KEY": weak})
    assert weak not in str(refused.value)


@pytest.mark.parametrize("weak", WEAK)
def test_a12_a_weak_bootstrap_key_is_refused_with_its_place(weak: str) -> None:
    with pytest.raises(SettingsError, match=r"keys\.bootstrap: key 2 ") as refused:
        load(environ={"TESTBASE_API_KEYS": f"{GOOD},{weak}"})
    assert weak not in str(refused.value)


def test_the_seeds_names_are_read_and_ours_win() -> None:
    found = load(environ={"ADMIN_API_KEY": GOOD, "TESTBASE_API_KEYS": f" {GOOD} , {OTHER},"})
    assert found.admin.api_key is not None and found.admin.api_key.get_secret_value() == GOOD
    assert [key.get_secret_value() for key in found.keys.bootstrap] == [GOOD, OTHER]
    ours = load(environ={"ADMIN_API_KEY": GOOD, "ATOLL_ADMIN__API_KEY": OTHER})
    assert ours.admin.api_key is not None and ours.admin.api_key.get_secret_value() == OTHER
    assert GOOD not in repr(found)


def test_nothing_is_open_by_itself() -> None:
    found = Settings()
    assert found.admin.api_key is None and found.keys.bootstrap == ()
    assert (found.keys.in_query, found.keys.token_in_query, found.accounts.waitlist) == (False, False, False)
