"""Secrets in calls of the SDK and in words of the command line: what travels, and what is refused before it does."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.cli import amounts
from atoll.cli.failure import Failed
from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.sdk import SecretUse
from atoll.sdk.errors import error_of
from atoll.sdk.secret_values import secret_items, secret_of, secret_words

USES = (
    "A",
    "grp_1/A",
    SecretUse("A", env="B"),
    SecretUse("grp_1/A", "file"),
    SecretUse("A", "file", path="/run/secrets/x"),
    SecretUse("A", "broker"),
    SecretUse("A", "broker", env="B"),
)


def test_what_travels_in_a_body() -> None:
    assert secret_items(USES) == [
        {"name": "A", "as": "env"},
        {"name": "grp_1/A", "as": "env"},
        {"name": "A", "as": "env", "env": "B"},
        {"name": "grp_1/A", "as": "file"},
        {"name": "A", "as": "file", "path": "/run/secrets/x"},
        {"name": "A", "as": "broker"},
        {"name": "A", "as": "broker", "env": "B"},
    ]
    assert secret_items(None) == [] == secret_words(None)


def test_what_travels_in_a_query() -> None:
    assert secret_words(USES) == [
        "A",
        "grp_1/A",
        "A=B",
        "grp_1/A=/run/secrets/A",
        "A=/run/secrets/x",
        "broker:A",
        "broker:A=B",
    ]


@pytest.mark.parametrize("wrong", ["A", b"A", 1, [1], [None], [SecretUse("A", "stdin")], [("A", "B")], {"A": "B"}])
def test_what_cannot_be_is_named(wrong: Any) -> None:
    for call in (secret_items, secret_words):
        with pytest.raises(InvalidInput, match="secrets") as raised:
            call(wrong)
        assert raised.value.field == "secrets"


def test_what_the_server_says_of_one() -> None:
    said = {
        "id": "sec_1",
        "name": "A",
        "owner_id": "grp_1",
        "group_id": "grp_1",
        "version": 2,
        "hosts": ["h"],
        "description": "d",
        "created_at": "2026-03-01T12:00:00Z",
        "rotated_at": None,
    }
    one = secret_of(said)
    assert (one.id, one.name, one.owner, one.group, one.version) == ("sec_1", "A", "grp_1", "grp_1", 2)
    assert (one.hosts, one.description, one.rotated_at) == (("h",), "d", None)
    assert one.created_at is not None and one.created_at.year == 2026


def test_errors_of_that_dialect_have_their_sentence() -> None:
    for status, code, kind in ((404, "not_found", NotFound), (409, "conflict", Conflict)):
        error = error_of(status, b'{"error": "%s", "message": "a sentence"}' % code.encode())
        assert (type(error), error.message) == (kind, "a sentence")


@pytest.mark.parametrize(
    ("detail", "field", "message"),
    [
        ('[{"loc": ["body", "rating"], "msg": "too high"}, {"loc": ["body", "a"]}]', "rating", "rating: too high"),
        ('[{"loc": ["body", "tags", 0], "msg": "tags.0 is odd"}]', "tags.0", "tags.0 is odd"),
        ('[{"loc": ["body", "max_price"], "msg": "dear"}]', "max_price_usd", "max_price_usd: dear"),
        ('[{"loc": ["body"], "msg": "no JSON"}]', None, "no JSON"),
        ("[]", None, "the request is not valid"),
        ("[1]", None, "the request is not valid"),
        ('"a sentence"', None, "a sentence"),
    ],
)
def test_a_list_of_what_is_wrong_is_told_as_its_first_sentence(detail: str, field: str | None, message: str) -> None:
    error = error_of(422, b'{"detail": %s}' % detail.encode())
    assert isinstance(error, InvalidInput)
    assert (error.field, error.message) == (field, message)


def test_words_of_a_command_line() -> None:
    words = ["A", "grp_1/A=B", "A=/run/secrets/x", "broker:A", "broker:A=B"]
    assert amounts.secrets(words) == [
        SecretUse("A"),
        SecretUse("grp_1/A", env="B"),
        SecretUse("A", "file", path="/run/secrets/x"),
        SecretUse("A", "broker"),
        SecretUse("A", "broker", env="B"),
    ]
    assert amounts.secrets([]) is None
    for wrong in ("", "=B", "A=", "broker:"):
        with pytest.raises(Failed):
            amounts.secrets([wrong])
