"""Languages: with which program the sidekick API runs a piece of code, and which one a piece seems to be written in."""

from __future__ import annotations

import re

from atoll.domain.errors import InvalidInput

ARGUMENT_BYTES_MAX = 64 * 1024  # of code as an argument; more goes in by stdin
MERGED = ("/bin/sh", "-c", 'exec "$@" 2>&1', "sh")  # one output, in the order in which it was written

# Name -> (the program with the flag that code follows, the program that reads it from stdin).
_PYTHON = (("python3", "-c"), ("python3", "-"))
_NODE = (("node", "-e"), ("node", "-"))
_RUBY = (("ruby", "-e"), ("ruby", "-"))
_PERL = (("perl", "-e"), ("perl", "-"))
_PHP = (("php", "-r"), ("php",))
_DENO = (("deno", "eval"), ("deno", "run", "-"))
_BUN = (("bun", "-e"), ("bun", "run", "-"))
LANGUAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "python": _PYTHON,
    "python3": _PYTHON,
    "py": _PYTHON,
    "node": _NODE,
    "nodejs": _NODE,
    "javascript": _NODE,
    "js": _NODE,
    "bash": (("bash", "-c"), ("bash", "-s")),
    "sh": (("sh", "-c"), ("sh", "-s")),
    "shell": (("sh", "-c"), ("sh", "-s")),
    "ruby": _RUBY,
    "rb": _RUBY,
    "perl": _PERL,
    "php": _PHP,
    "deno": _DENO,
    "bun": _BUN,
    "typescript": _DENO,
    "ts": _DENO,
}

_SHEBANGS = {"python": "python", "node": "node", "bash": "bash", "ruby": "ruby", "perl": "perl", "sh": "sh"}
# What only one of them would be written with; the most hits win, and of equals the first.
_SIGNS = {
    "python": (
        r"^[ \t]*(def|class|for|while|if|elif|with|try|else|except)\b[^;{}\n]*:[ \t]*(#.*)?$",
        r"^[ \t]*(import [\w.]+( as \w+)?|from [\w.]+ import .+)$",
        r"\bprint\(",
        r"\b(None|True|False|self|lambda|elif)\b",
        r"\bf\"|\bf'",
    ),
    "node": (
        r"\bconsole\.\w+\(",
        r"^[ \t]*(const|let|var)\s+[\w{\[]",
        r"\brequire\(",
        r"=>",
        r"\bfunction\b *\w*\(",
        r"\b(process|module|JSON|Math)\.\w",
        r"^[ \t]*import\b.*\bfrom\s+['\"]",
        r";[ \t]*$",
    ),
    "ruby": (
        r"^[ \t]*puts\b",
        r"^[ \t]*end[ \t]*$",
        r"\bdo \|\w+\|",
        r"^[ \t]*require ['\"]",
        r"\.each\b",
        r"^[ \t]*def \w[^:\n]*$",
    ),
    "bash": (
        r"^[ \t]*(echo|ls|cd|cat|grep|mkdir|rm|cp|mv|curl|sudo|apt|pip|npm|git|export|source|set|sleep)\b(?!\s*[=(.])",
        r"\$(\w+|\{|\()",
        r"^[ \t]*(fi|done|esac)\b",
        r"\bif \[",
        r"\s(\|\||&&)\s",
    ),
}
_LOOKED_AT_CHARACTERS = 16_384


def argv_for(code: str, language: str) -> tuple[tuple[str, ...], bytes]:
    """The words that run it, and what they read. InvalidInput (`language`) for one that nobody knows."""
    found = LANGUAGES.get(language.lower())
    if found is None:
        raise InvalidInput(f"language must be one of {', '.join(LANGUAGES)}", field="language")
    as_argument, by_stdin = found
    data = code.encode()
    if len(data) > ARGUMENT_BYTES_MAX:
        return (*MERGED, *by_stdin), b"<?php " + data if found is _PHP else data
    return (*MERGED, *as_argument, code), b""


def detected(code: str) -> str:
    """Which language it seems to be in: what its first line says, else what its lines look like, else python."""
    code = code[:_LOOKED_AT_CHARACTERS]
    first = code.split("\n", 1)[0]
    if first.startswith("#!"):
        for sign, language in _SHEBANGS.items():
            if re.search(rf"\b{sign}\d*(\.\d+)?\b", first):
                return language
    hits = {
        language: sum(len(re.findall(sign, code, re.MULTILINE)) for sign in signs) for language, signs in _SIGNS.items()
    }
    return max(hits, key=lambda language: hits[language])
