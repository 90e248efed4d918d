"""Which sandbox a command means: by its id, by its name, or by the beginning of its id; every command uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.cli.failure import Failed
from atoll.domain.ids import SANDBOX_ID

if TYPE_CHECKING:
    from atoll.sdk import AsyncSandbox, SandboxInfo

_PREFIX_CHARS_MIN = 3


async def find(text: str) -> AsyncSandbox:
    """The sandbox; NotFound from the server, or Failed when nothing or too much goes by that name."""
    from atoll.sdk import AsyncSandbox

    if SANDBOX_ID.match(text):
        return await AsyncSandbox.connect(text)
    return await AsyncSandbox.connect(pick(text, list(await AsyncSandbox.list())).id)


def pick(text: str, known: list[SandboxInfo]) -> SandboxInfo:
    """The one of them that `text` means; among equal names a live one, else the newest."""
    named = [info for info in known if info.name == text]
    live = [info for info in named if info.live]
    if len(live) > 1:
        raise Failed(f"{len(live)} live sandboxes are called {text}: use an id ({', '.join(one.id for one in live)})")
    if named:
        return (live or named)[0]
    prefix = text if text.startswith("sess_") else f"sess_{text}"
    begun = [info for info in known if info.id.startswith(prefix)] if len(text) >= _PREFIX_CHARS_MIN else []
    if len(begun) > 1:
        raise Failed(f"{len(begun)} sandboxes have an id that begins with {text}")
    if not begun:
        raise Failed(f"there is no sandbox {text}: `atoll ps -a` lists them")
    return begun[0]
