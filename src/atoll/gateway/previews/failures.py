"""What goes wrong with a port behind a preview; the door of previews answers with 502, 503 or 504.

UpstreamFailed
├── Refused      nothing was reached: the sandbox has ended, or nothing listens
├── Broken       it broke off, or what it sends is no HTTP
├── Late         it did not answer in time
└── Crowded      as many connections are open as there may be
"""

from __future__ import annotations


class UpstreamFailed(Exception):
    """A port did not answer as it should."""

    status = 502


class Refused(UpstreamFailed):
    """Nothing was reached: no byte of the request was sent."""

    def __init__(self, message: str, *, ended: bool = False) -> None:
        self.ended = ended  # the sandbox is not there any more
        super().__init__(message)


class Broken(UpstreamFailed):
    """It broke off, or what it sends is no HTTP."""


class Late(UpstreamFailed):
    """It did not answer in time."""

    status = 504


class Crowded(UpstreamFailed):
    """As many connections are open as there may be."""

    status = 503


class Gone(Exception):
    """The client is gone: nobody reads an answer."""


class Silent(Exception):
    """The client does not send the rest of its request: no fault of the port's."""
