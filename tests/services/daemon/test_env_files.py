"""Environment files: what is written is read again as it was, and comments and order stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import example, given
from hypothesis import strategies as st

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, TooLarge
from atoll.services.daemon import env_files
from atoll.services.daemon.env_files import values_in, with_lines
from tests.services.conftest import ALICE, BOB, READER
from tests.services.daemon.conftest import Kept

FILE = """# first
A=1  # of a
export B='two words'

C="multi
line" # of c
# last
D=
"""


async def test_variables_are_set_read_and_unset_in_place(kept: Kept) -> None:
    files = kept.tools.env_files
    await kept.house.sandboxes.files.write(ALICE, kept.id, ".env", _pieces(FILE.encode()), mode=0o640)
    assert await files.read(ALICE, kept.id) == {"A": "1", "B": "two words", "C": "multi\nline", "D": ""}
    assert await files.set(ALICE, kept.id, {"B": "x y", "A": "it's", "NEW": "$HOME"}) == ["B", "A", "NEW"]
    assert await _text(kept) == (
        "# first\nA=\"it's\"  # of a\nexport B='x y'\n\nC=\"multi\nline\" # of c\n# last\nD=\nNEW='$HOME'\n"
    )
    assert await files.unset(ALICE, kept.id, ["C", "none"]) == ["C"]
    assert await _text(kept) == "# first\nA=\"it's\"  # of a\nexport B='x y'\n# last\nD=\nNEW='$HOME'\n"
    assert (await kept.house.sandboxes.files.stat(ALICE, kept.id, ".env")).mode == 0o640


async def test_a_file_is_made_where_there_is_none_and_for_its_owner_alone(kept: Kept) -> None:
    files = kept.tools.env_files
    with pytest.raises(NotFound):
        await files.read(ALICE, kept.id, "/tmp/new/.env")
    assert not await files.exists(ALICE, kept.id, "/tmp/new/.env")
    await files.set(ALICE, kept.id, {"A": "1"}, "/tmp/new/.env")
    assert await files.exists(ALICE, kept.id, "/tmp/new/.env")
    assert (await kept.house.sandboxes.files.stat(ALICE, kept.id, "/tmp/new/.env")).mode == 0o600
    with pytest.raises(NotFound):
        await files.unset(ALICE, kept.id, ["A"], "/tmp/none")


async def test_bounds_and_tenancy(kept: Kept) -> None:
    files = kept.tools.env_files
    for bad in ({"1A": "x"}, {"A=B": "x"}, {"": "x"}, {"A": "x\0"}, {"A\n": "x"}, {f"A{n}": "" for n in range(1001)}):
        with pytest.raises(InvalidInput):
            await files.set(ALICE, kept.id, bad)
    await kept.house.sandboxes.files.write(ALICE, kept.id, "/tmp/large", _pieces(b"#" * (env_files.FILE_BYTES_MAX + 1)))
    with pytest.raises(TooLarge):
        await files.read(ALICE, kept.id, "/tmp/large")
    await kept.house.sandboxes.files.write(ALICE, kept.id, "/tmp/bytes", _pieces(b"A=\xff"))
    with pytest.raises(InvalidInput, match="UTF-8"):
        await files.read(ALICE, kept.id, "/tmp/bytes")
    with pytest.raises(NotFound):
        await files.exists(BOB, kept.id)
    with pytest.raises(Forbidden):
        await files.set(READER, kept.id, {"A": "1"})


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), st.text(max_size=12), max_size=4))
@example({"A": "C:\\dir\\", "B": 'it\'s "both"\n', "C": " padded ", "D": "# no comment", "E": "${A}"})
@example({"A": "\\n", "B": "trailing\\", "C": "a\rb", "D": "'"})
def test_every_value_is_read_again_as_it_was_written_or_refused(variables: dict[str, str]) -> None:
    try:
        lines = {name: env_files._line(name, value) for name, value in variables.items()}
    except InvalidInput:
        return
    text = with_lines("# a comment\nOLD=1\n", lines)
    assert text.startswith("# a comment\nOLD=1\n") or "OLD" in variables
    assert values_in(text) == {"OLD": "1"} | variables
    again = with_lines(text, lines)
    assert again == text


def test_plain_values_stay_plain_and_python_dotenv_reads_all(tmp_path: Path) -> None:
    lines = {name: env_files._line(name, value) for name, value in {"A": "http://a/?b=c,d", "B": "a b"}.items()}
    assert lines == {"A": "A='http://a/?b=c,d'", "B": "B='a b'"} and env_files._line("C", "a=b") == "C=a=b"
    path = tmp_path / ".env"
    path.write_text(with_lines("", lines))
    assert dotenv_values(path, interpolate=False) == {"A": "http://a/?b=c,d", "B": "a b"}


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _text(kept: Kept) -> str:
    _, chunks = await kept.house.sandboxes.files.read(ALICE, kept.id, ".env")
    return b"".join([chunk async for chunk in chunks]).decode()


async def test_blanks_take_nobodys_time(kept: Kept) -> None:
    """Without a bound, one line of them would keep the server busy for hours."""
    long = "x" + " " * env_files.BLANKS_MAX
    text = f"A={long[1:]}{long * 900} # why\n"
    assert env_files.with_lines(text, {"A": "A=1"}) == f"A=1{' ' * (env_files.BLANKS_MAX + 1)}# why\n"
    files = env_files.EnvFiles(kept.house.sandboxes)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"A=x" + b" " * (env_files.BLANKS_MAX + 1) + b"y\n"

    await kept.house.sandboxes.files.write(ALICE, kept.id, "/tmp/.env", pieces())
    with pytest.raises(InvalidInput, match="blanks") as refusal:
        await files.read(ALICE, kept.id, "/tmp/.env")
    assert refusal.value.field == "file"
    with pytest.raises(InvalidInput, match="blanks"):
        await files.set(ALICE, kept.id, {"A": "'x" + " " * (env_files.BLANKS_MAX + 1)})
    with pytest.raises(TooLarge):
        await files.set(ALICE, kept.id, {"A": "x" * (env_files.FILE_BYTES_MAX + 1)})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("A='x' # why\n", "A=1 # why\n"),
        ("A=x#y  # why \n", "A=1  # why \n"),
        ("A= # a value\n", "A=1\n"),
        ('export A="x # y"\n', "export A=1\n"),
        ("A\n", "A=1\n"),
    ],
    ids=["quoted", "unquoted", "value", "inside", "bare"],
)
def test_what_stands_behind_a_value_stays(before: str, after: str) -> None:
    assert env_files.with_lines(before, {"A": "A=1"}) == after
