"""Where an agent runs: on a server (`CloudRuntime`) or with a private one on this machine (`LocalRuntime`).

Both only say where the server is and which key opens it; agents call `connection`, which may block.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Protocol

from atoll.domain.errors import InvalidInput
from atoll.sdk.arguments import millis

KEY_VARIABLES = ("ATOLL_API_KEY", "TESTBASE_API_KEY")  # the first that is set counts


class Runtime(Protocol):
    """What an agent needs of one."""

    skip_sync: bool
    timeout: float | None
    debug: bool

    def connection(self, agent: str | None) -> tuple[str | None, str | None]:
        """The server's URL and the key, as `Config` takes them; None: as the environment says. Blocks."""
        ...


class CloudRuntime:
    """A server: `api_url`, else ATOLL_URL, else this machine's own. The key: `api_key`, else ATOLL_API_KEY, else
    TESTBASE_API_KEY, else that of this machine's own server.

    `timeout` bounds each task, in seconds. With `skip_sync` agents work on the server's copy of their workspace, and
    nothing is sent or fetched. `debug` tells on stderr what is done.
    """

    def __init__(
        self,
        api_key: str | None = None,
        api_url: str | None = None,
        timeout: float | None = None,
        debug: bool = False,
        *,
        skip_sync: bool = False,
    ) -> None:
        millis(timeout, "timeout")
        self.api_url = api_url
        self.timeout = timeout
        self.debug = debug
        self.skip_sync = skip_sync
        self._api_key = api_key

    def __repr__(self) -> str:
        return f"CloudRuntime(api_url={self.api_url!r})"  # never the key

    def connection(self, agent: str | None) -> tuple[str | None, str | None]:
        key = self._api_key
        if key is None:
            key = next((os.environ[name] for name in KEY_VARIABLES if name in os.environ), None)
        if key is not None and not key.strip():
            raise InvalidInput(f"the API key (api_key, {', '.join(KEY_VARIABLES)}) is empty", field="api_key")
        return self.api_url, key


def teller(debug: bool) -> Callable[[str], None]:
    """Says a line on stderr, or nothing. No line has a key, an instruction or a file's content in it."""

    def tell(line: str) -> None:
        sys.stderr.write(f"atoll: {line}\n")
        sys.stderr.flush()

    return tell if debug else _nothing


def _nothing(line: str) -> None: ...
