"""Languages: what a piece of code is run with, and what it seems to be written in."""

from __future__ import annotations

import time

import pytest

from atoll.domain.errors import InvalidInput
from atoll.services.daemon.languages import ARGUMENT_BYTES_MAX, LANGUAGES, argv_for, detected

WRITTEN_IN = {
    "print('hi')": "python",
    "import os\nprint(os.getcwd())": "python",
    "def f(x):\n    return x\nprint(f(1))": "python",
    "1 + 1": "python",
    "": "python",
    "console.log('hi')": "node",
    "const a = 1; console.log(a)": "node",
    "import fs from 'fs'\nconst x = fs.readdirSync('.')": "node",
    "process.stdout.write('a')": "node",
    "echo hi": "bash",
    "for i in 1 2 3; do echo $i; done": "bash",
    "ls -la | grep x && cat y": "bash",
    "puts 'x'": "ruby",
    "[1, 2].each do |y|\n  puts y\nend": "ruby",
    "#!/usr/bin/env node\nprint(1)": "node",
    "#!/usr/bin/python3.11\necho": "python",
    "#!/bin/sh\nprint(1)": "sh",
}


@pytest.mark.parametrize("code", WRITTEN_IN)
def test_the_language_is_found_out(code: str) -> None:
    assert detected(code) == WRITTEN_IN[code]


@pytest.mark.parametrize("part", ["def ", "\n", ";  ", "from a import ", "do |", "function  "])
def test_no_code_takes_long_to_look_at(part: str) -> None:
    code = part * (40_000 // len(part))
    began = time.process_time()
    detected(code)
    assert time.process_time() - began < 1


def test_a_long_name_is_looked_at_once() -> None:
    began = time.process_time()
    detected("def " + "a" * 16_000 + ":")
    assert time.process_time() - began < 1


def test_short_code_is_an_argument_and_long_code_is_read_from_stdin() -> None:
    words = ("/bin/sh", "-c", 'exec "$@" 2>&1', "sh", "python3", "-c", "print(1)")
    assert argv_for("print(1)", "Python3") == (words, b"")
    long = "#" * (ARGUMENT_BYTES_MAX + 1)
    for language in LANGUAGES:
        argv, stdin = argv_for(long, language)
        assert long not in argv and stdin.endswith(long.encode())


def test_an_unknown_language_is_named_with_those_that_are_known() -> None:
    with pytest.raises(InvalidInput, match="language must be one of python") as refused:
        argv_for("x", "cobol")
    assert refused.value.field == "language"
