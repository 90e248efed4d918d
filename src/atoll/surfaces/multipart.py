"""Multipart forms with one file (RFC 7578), as they come: only a few small fields are held, nothing lies on a disk.

The handlers of uploads iterate over the file's bytes; when those end, the fields are known too, in whatever order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from atoll.domain.errors import InvalidInput, TooLarge
from atoll.surfaces.bodies import upload

FIELD_BYTES_MAX = 8 * 1024  # of all small fields together
PARTS_MAX = 64
ENVELOPE_BYTES = 64 * 1024  # of a body beyond its file: boundaries, heads of parts, fields


class UploadForm:
    """The form in a request's body. `pieces` is read once, to its end; `fields` and `filename` hold from then on."""

    def __init__(self, request: Request, file: str, limit_bytes: int) -> None:
        """`file`: the name of the part whose bytes are asked for. TooLarge for an announced length, InvalidInput for a
        body that is no form."""
        self._limit_bytes = limit_bytes
        self._body = upload(request, limit_bytes + ENVELOPE_BYTES)  # what is announced beyond that is refused first
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
            raise InvalidInput("No file uploaded", field=file)
        self.fields: dict[str, str] = {}
        self.filename: str | None = None  # None: there is no such part
        self._file = file
        self._parts = self._small = self._bytes = 0
        self._ended = False
        self._head: list[tuple[bytes, bytes]] = []
        self._name, self._value = b"", b""
        self._field: str | None = None  # the part that is being read, None for the file's
        self._waiting: list[bytes] = []
        self._parser = MultipartParser(boundary, self._callbacks())

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The file's bytes. TooLarge beyond the limit; InvalidInput for a form that is broken or cut short."""
        async for data in self._body:
            self._feed(data)
            for piece in self._taken():
                yield piece
        if not self._ended:
            raise InvalidInput("the form is cut short", field=self._file)

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidInput(f"the body is no multipart form: {error}", field=self._file) from None

    def _taken(self) -> list[bytes]:
        waiting, self._waiting = self._waiting, []
        self._bytes += sum(map(len, waiting))
        if self._bytes > self._limit_bytes:
            raise TooLarge(f"the file is larger than {self._limit_bytes} bytes")
        return waiting

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._head_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise InvalidInput(f"the form has more than {PARTS_MAX} parts", field=self._file)
        self._head = []

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._head.append((self._name.lower(), self._value))
        self._name = self._value = b""

    def _head_end(self) -> None:
        kind, options = parse_options_header(dict(self._head).get(b"content-disposition", b""))
        name = _text(options.get(b"name", b""), self._file)
        if kind != b"form-data" or not name:
            raise InvalidInput("a part of the form has no name", field=self._file)
        self._field = name
        if name == self._file:
            if self.filename is not None:
                raise InvalidInput("more than one file is uploaded", field=self._file)
            self.filename = _text(options.get(b"filename", b""), self._file)
            self._field = None
        elif name in self.fields:
            raise InvalidInput(f"{name} is given more than once", field=name[:64])
        else:
            self.fields[name] = ""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._waiting.append(data[start:end])
            return
        self._small += end - start
        if self._small > FIELD_BYTES_MAX:
            raise TooLarge(f"the fields of the form are larger than {FIELD_BYTES_MAX} bytes")
        # Bytes of a character may come in two pieces: latin-1 until all are there.
        self.fields[self._field] += data[start:end].decode("latin-1")

    def _end(self) -> None:
        self._ended = True
        self.fields = {name: _text(value.encode("latin-1"), name) for name, value in self.fields.items()}


def _text(data: bytes, field: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{field[:64]} must be UTF-8", field=field[:64]) from None
