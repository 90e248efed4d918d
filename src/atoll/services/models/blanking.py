"""Blanking: what must not leave for a provider is taken out of a request: a tenant's secrets, keys of this server.

Programs see secrets, and agents put what programs print into the conversation. This guards against that, not against
a program that hides a value on purpose: whoever reads a secret inside can spell it backwards.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from atoll.domain.sandbox import Sandbox

SECRET_BYTES_MIN = 8  # shorter values are parts of anything
LINE_BYTES_MIN = 20  # of a value of several lines: programs show them one by one, with numbers before them
KNOWN_S = 30.0
BLANK = b"[withheld by Atoll]"
# A key as this server makes them is found by its end: bodies are large, and that is quick.
_KEY_END = re.compile(rb"_[0-9a-f]{64}(?!\w)")
_KEY_HEAD = re.compile(rb"[a-z][a-z0-9_]{0,7}\Z")
HEAD_BYTES_MAX = 8

Secrets = Callable[[Sandbox], Awaitable[Sequence[bytes]]]


class Blanking:
    """`secrets` are the values that a sandbox's processes have, or that are put in for them; `own`: the server's."""

    def __init__(self, secrets: Secrets, own: Iterable[str] = ()) -> None:
        self._secrets = secrets
        self._own = _needles(value.encode() for value in own)
        self._known: dict[str, tuple[float, tuple[bytes, ...]]] = {}

    async def blank(self, sandbox: Sandbox, body: bytes) -> tuple[bytes, int]:
        """The body without them, and how many places there were."""
        found = 0
        for needle in (*self._own, *await self._of(sandbox)):
            times = body.count(needle)
            if times:
                body = body.replace(needle, BLANK)
                found += times
        body, keys = _without_keys(body)
        return body, found + keys

    async def _of(self, sandbox: Sandbox) -> tuple[bytes, ...]:
        if not sandbox.spec.secrets:
            return ()
        now = time.monotonic()
        known = self._known.get(sandbox.id)
        if known is None or now >= known[0]:
            # values are not kept for sandboxes that ask no more
            self._known = {name: one for name, one in self._known.items() if now < one[0]}
            known = self._known[sandbox.id] = (now + KNOWN_S, _needles(await self._secrets(sandbox)))
        return known[1]


def _without_keys(body: bytes) -> tuple[bytes, int]:
    """Without what looks like a key of this server, and how many there were."""
    parts: list[bytes] = []
    at = 0
    for end in _KEY_END.finditer(body):
        head = _KEY_HEAD.search(body, max(at, end.start() - HEAD_BYTES_MAX), end.start())
        if head is None:
            continue
        begin = head.start()
        if body[begin - 1 : begin] == b"\\":  # the letters of an escape are not the key's
            begin += 5 if body[begin : begin + 1] == b"u" else 1
        parts += (body[at:begin], BLANK)
        at = end.end()
    return b"".join((*parts, body[at:])), len(parts) // 2


def _needles(values: Iterable[bytes]) -> tuple[bytes, ...]:
    """Each as it stands in JSON: as a text, and as a text within a text, which the arguments of tools are."""
    found: dict[bytes, None] = {}
    for value in values:
        stripped = value.strip()
        if len(stripped) < SECRET_BYTES_MIN:
            continue
        lines = [line.strip() for line in stripped.splitlines()]
        parts = [stripped, *(line for line in lines if len(lines) > 1 and len(line) >= LINE_BYTES_MIN)]
        for part in parts:
            found[part] = None
            for once in _spellings(part.decode(errors="replace")):
                found[once.encode(errors="replace")] = None
                for twice in _spellings(once):
                    found[twice.encode(errors="replace")] = None
    return tuple(sorted(found, key=len, reverse=True))


def _spellings(text: str) -> tuple[str, ...]:
    return tuple(json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
