"""Makes `src/atoll/sdk/_sync/` from `src/atoll/sdk/_async/` by swapping words; run it after changing the latter.

`python scripts/unasync.py` writes, `python scripts/unasync.py --check` says whether it would; a test calls `stale`.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

SDK = Path(__file__).resolve().parent.parent / "src" / "atoll" / "sdk"
NOTICE = "# Made by scripts/unasync.py from ../_async/{name}: change that file, not this one.\n"

_WORDS = {
    "_async": "_sync",
    "_async_io": "_io",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
    "aclosing": "closing",
    "AsyncGenerator": "Generator",
    "aiter_stream": "iter_stream",
    "handle_async_request": "handle_request",
    "StopAsyncIteration": "StopIteration",
}
_NAME = re.compile(r"^(_?)Async(?=[A-Z])")
_FUNCTION = re.compile(r"^(_?)async_(?=[a-z])")
_IN_TEXT = re.compile(r"\b_?Async[A-Z]\w*|\b_async\b|\b_?async_[a-z]\w*|\b(?:async|await) ")


def sync_of(source: str, name: str) -> str:
    """The source of the sync twin of `_async/<name>`."""
    lines = [line for line in source.splitlines(keepends=True) if not line.startswith("# ruff: noqa")]
    source = "".join(lines)
    out: list[str] = []
    row, col = 1, 0
    dropped = False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.start[0] > row:
            row, col = token.start[0], 0
        gap = _between(lines, (row, col), token.start) if not dropped else ""
        dropped = token.type == tokenize.NAME and token.string in ("async", "await")
        out.append(gap if dropped else gap + _word(token))
        row, col = token.end
    return _tidy(NOTICE.format(name=name) + "".join(out), name)


def _tidy(source: str, name: str) -> str:
    """Shorter names sort and wrap in other ways."""
    ruff = [sys.executable, "-m", "ruff"]
    file = ["--stdin-filename", str(SDK / "_sync" / name), "-"]
    fix = ["check", "--quiet", "--fix-only", "--select", "I,UP028", "--unsafe-fixes"]
    for command in ([*ruff, *fix, *file], [*ruff, "format", *file]):
        source = subprocess.run(command, input=source, capture_output=True, text=True, check=True, timeout=60).stdout
    return source


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The blanks between two tokens, which `tokenize` does not give."""
    if start >= end:
        return ""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    return "".join([lines[start[0] - 1][start[1] :], *lines[start[0] : end[0] - 1], lines[end[0] - 1][: end[1]]])


def _word(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        return _swap(token.string)
    if token.type in (tokenize.STRING, tokenize.COMMENT):
        return _IN_TEXT.sub(lambda found: "" if found[0].endswith(" ") else _swap(found[0]), token.string)
    return token.string


def _swap(word: str) -> str:
    return _WORDS.get(word) or _FUNCTION.sub(r"\1", _NAME.sub(r"\1", word))


def twins() -> dict[str, str]:
    """What every file of `_sync/` should contain, by its name."""
    return {path.name: sync_of(path.read_text(), path.name) for path in sorted((SDK / "_async").glob("*.py"))}


def stale(sync: Path = SDK / "_sync") -> dict[Path, str | None]:
    """Files of `_sync/` that are not what their source says, with what they should hold; None: no source."""
    wanted = {sync / name: text for name, text in twins().items()}
    there = set(sync.glob("*.py"))
    wrong: dict[Path, str | None] = {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text
    }
    return wrong | dict.fromkeys(there - set(wanted))


def main() -> int:
    wrong = stale()
    if "--check" in sys.argv[1:]:
        for path in wrong:
            print(f"stale: _sync/{path.name}")
        return 1 if wrong else 0
    (SDK / "_sync").mkdir(exist_ok=True)
    for path, text in wrong.items():
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        print(f"wrote _sync/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
