"""Host paths: no client is told where the server keeps its files; logs are.

Who turns the words of another process or an error of the system into one of domain/errors.py calls it.
"""

from __future__ import annotations

import re

_NAMED = re.compile(r"""(?::| ->) (?:'/[^']*'|"/[^"]*")""")  # as OSError puts them behind its own words
_ELSEWHERE = re.compile(r"""'/[^']*'|"/[^"]*"|(?<![\w.~/])/(?!/)[^\s'",:;()]+""")
PATH = "[path]"


def without_paths(text: str) -> str:
    """The text with no absolute path in it."""
    return _ELSEWHERE.sub(PATH, _NAMED.sub("", text))
