"""Targets that parse what clients of object stores send: signatures, addresses, metadata; see `targets`.

Each is what it runs, its corpus of valid inputs, and how it refuses.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from datetime import UTC, datetime

from atoll.domain.errors import AtollError, InvalidInput
from atoll.domain.tree import Entry, EntryKind, check_path
from atoll.services.objects.listing import Listed, Wanted
from atoll.services.objects.names import is_hidden, key_of, path_of
from atoll.services.objects.objects import StoredObject
from atoll.surfaces.objects import handlers
from atoll.surfaces.objects.answers import listing
from atoll.surfaces.objects.errors import error_response
from atoll.surfaces.objects.signatures import claim

Parts = tuple[Callable[[bytes], object], Callable[[], list[bytes]], tuple[type[Exception], ...]]
DATE = b"Sun, 22 Nov 2026 00:46:12 GMT"
SIGNED = b"GOOG1 hmac_35d734b3019eb613ead7f3ff:YWZ9VBXDKOkrz7pObdSdTqTv/DQ="


def _signature(data: bytes) -> None:
    """Lines: the method, the path, the query, and headers."""
    method, path, query, *rest = (*data.split(b"\n"), b"", b"")
    headers = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in rest)]
    found = claim(method.decode("latin-1"), path, query, headers)
    if found is None:
        raise InvalidInput("not signed")
    assert not found.holds("another secret")
    assert found.at is None or abs((found.at - datetime.now(UTC)).days) < 10**7


def _key(data: bytes) -> None:
    """A key that is taken is a path, is not hidden, and is what it is listed as."""
    key = data.decode("utf-8", "replace")
    path = path_of(key)
    check_path(path)
    assert not is_hidden(path) and key_of(Entry(path, EntryKind.FILE)) == key
    page = Listed([(f"w/{key}", StoredObject(key, Entry(path, EntryKind.FILE), bytes(16)))], [f"w/{key}/"])
    for encoded in (False, True):
        body = listing("b", Wanted(prefix=key), page, encoded=encoded, token=None).body
        keys = [one.text for one in ElementTree.fromstring(bytes(body)).iter() if one.tag.endswith("}Key")]
        assert encoded or keys == [f"w/{key}"]


def _fields(data: bytes) -> None:
    """What stands in headers and queries, one after the other."""
    text = data.decode("latin-1")
    span = handlers._range(text, 1_000)
    assert span is None or (0 <= span[0] < 1_000 and 0 < span[1] <= 1_000 - span[0])
    assert handlers._mode(text) is None or 0 <= (handlers._mode(text) or 0) <= 0o777
    assert abs(handlers._mtime(text) or 0) <= 2**63
    page = ElementTree.fromstring(bytes(error_response(400, "InvalidArgument", text).body))
    assert page.findtext("Message") is not None
    for parse in (handlers._md5, lambda one: handlers._continued({"continuation-token": one})):
        try:
            parse(text)
        except InvalidInput:
            pass


OBJECTS: dict[str, Parts] = {
    "object signature": (
        _signature,
        lambda: [
            b"GET\n/b/p/a\nversionId=1&x=%%20&acl\ndate: %b\nauthorization: %b" % (DATE, SIGNED),
            b"PUT\n/b/a%%20b\n\nx-goog-date: %b\nx-goog-meta-a: b\ncontent-md5: x==\nauthorization: %b"
            % (DATE, SIGNED),
        ],
        (AtollError,),
    ),
    "object key": (
        _key,
        lambda: [b"a/b c.txt", "ä/☃ & <b>\"'.txt".encode(), b".home2/a", b"a\tb\nc\rd"],
        (AtollError,),
    ),
    "object fields": (
        _fields,
        lambda: [b"bytes=0-99", b"bytes=-5", b"1700000000.5", b"755", b"1B2M2Y8AsgTpgAmy7PhCfg==", b"dy9h"],
        (InvalidInput,),
    ),
}
