"""Structured logs on standard error: one line each, JSON or for people, with request and sandbox ids.

`serve` calls `configure` once; everybody else takes `structlog.get_logger()` and says what happened.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["auto", "json", "text"]

# A key's text anywhere in a line, tracebacks included, and bearer credentials of any kind.
_SECRETS = re.compile(
    r"\b(sk_|tb_)[0-9a-f]{16,}|(?i:\b(bearer\s+))[A-Za-z0-9._~+/=-]{8,}"
    r"|\b([a-z][a-z0-9_]{0,7}_)[0-9a-f]{64}\b"  # a key with a prefix that its maker chose
)
_SECRET_FIELDS = frozenset({"authorization", "api_key", "apikey", "key_text", "token", "secret", "password", "env"})
MASK = "[secret]"


def mask(text: str) -> str:
    """`text` without the credentials that stand in it; prefixes stay, to tell what it was."""
    if "_" not in text and "earer" not in text:  # far cheaper than the expression
        return text
    return _SECRETS.sub(lambda found: (found.group(1) or found.group(2) or found.group(3) or "") + MASK, text)


def configure(form: Format = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to `stream` (default: standard error).

    `auto` is text on a terminal, else JSON lines.
    """
    output = stream or sys.stderr
    global _requests
    target = _Lines(output)
    if form == "auto":
        form = "text" if output.isatty() else "json"
    target.json = form == "json"
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _mask_fields,
    ]
    _requests = target if threshold <= logging.INFO else None
    structlog.configure(
        processors=[*shared, *_rendering(form)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=target.logger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(
        target,
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(form)],
        ),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.WARNING) if threshold > logging.DEBUG else threshold)
    # At INFO uvicorn writes each WebSocket's query string, where `env=NAME=VALUE` may stand.
    logging.getLogger("uvicorn").setLevel(max(threshold, logging.WARNING))


def request(fields: dict[str, Any]) -> None:
    """The line of one HTTP request. It skips structlog's chain, which would cost more than the request itself;
    nothing in it is a client's own text but an id that has no room for a credential."""
    if _requests is None:
        return
    if _requests.json:
        at = datetime.now(UTC)
        _requests.msg(to_json({"event": "request", "level": "info", "timestamp": at, **fields}).decode())
    else:
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        _requests.msg(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} [info     ] request {words}")


def _rendering(form: Format) -> list[Processor]:
    if form == "text":
        # The default would show the values of all variables, a tenant's secrets among them, and take seconds to do so.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain), _mask_line]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(), _mask_line]


def _mask_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name in event.keys() & _SECRET_FIELDS:
        event[name] = MASK
    return event


def _mask_line(_logger: WrappedLogger, _method: str, line: Any) -> str:
    return mask(str(line))


class _Lines:
    """Whole lines to a stream. A reader that went away must not make requests fail: errors are dropped."""

    json = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def logger(self, *_args: Any) -> _Lines:
        return self

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


_requests: _Lines | None = None  # set by `configure`; until then, and above INFO, requests are not logged


class _Handler(logging.Handler):
    def __init__(self, target: _Lines, formatter: logging.Formatter) -> None:
        super().__init__()
        self._target = target
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._target.msg(self.format(record))
        except Exception:  # a line that cannot be rendered is no reason to fail what wrote it
            self.handleError(record)
