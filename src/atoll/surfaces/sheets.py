"""Sheets: lists as CSV (RFC 4180, UTF-8), streamed a page at a time; the handlers of bills answer with it.

A text that a spreadsheet would take for a formula gets an apostrophe before it, as OWASP advises.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atoll.surfaces.bodies import Stream, begun, close_iterator
from atoll.surfaces.operation import Parameter

CSV = "text/csv"
FORMAT = Parameter("format", "csv: the list as a sheet, as with `Accept: text/csv`", choices=("json", "csv"))
ROWS = 200  # of one piece
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def wants_sheet(request: Request) -> bool:
    """Whether the answer is to be CSV: what the query says, else the Accept header."""
    said = FORMAT.text(request)
    return said == "csv" if said is not None else CSV in request.headers.get("accept", "")


async def sheet(rows: AsyncIterator[Mapping[str, Any]], columns: Sequence[str], name: str) -> Response:
    """The rows under their heading. What is wrong with them before the first is raised here."""
    pieces = await begun(_pieces(rows, columns))
    headers = {"content-disposition": f'attachment; filename="{name}.csv"', "cache-control": "no-store"}
    return Stream(pieces, headers=headers, media_type="text/csv; charset=utf-8")


def cell(value: Any) -> str:
    """One cell; only texts can be formulas, a negative amount is none."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    text = str(value)
    return "'" + text if isinstance(value, str) and text.startswith(_FORMULA) else text


async def _pieces(rows: AsyncIterator[Mapping[str, Any]], columns: Sequence[str]) -> AsyncIterator[bytes]:
    held = io.StringIO()
    writer = csv.writer(held)
    writer.writerow(columns)
    count = 0
    try:
        async for row in rows:
            writer.writerow([cell(row[column]) for column in columns])
            count += 1
            if count % ROWS == 0:
                yield _taken(held)
        yield _taken(held)
    finally:
        await close_iterator(rows)


def _taken(held: io.StringIO) -> bytes:
    text = held.getvalue()
    held.seek(0)
    held.truncate()
    return text.encode("utf-8", "replace")
