"""Signatures: what a client of an object store signs, and whether it did: `GOOG1 <id>:<signature>` and `AWS ...`.

It is the HMAC-SHA1 of some lines about the request, in base64; both dialects differ in the prefix of their headers.
The lines are described in the XML API's reference, "Requests signed with V2", and are what boto makes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

from atoll.domain.errors import InvalidInput

Headers = Sequence[tuple[bytes, bytes]]
PREFIXES = {"GOOG1": "x-goog-", "AWS": "x-amz-"}
ID_CHARS_MAX = 128
# Parameters that say which part of a bucket or an object is meant; others are not signed.
SIGNED = frozenset(
    {
        "acl",
        "billing",
        "compose",
        "cors",
        "defaultObjectAcl",
        "delete",
        "encryption",
        "encryptionConfig",
        "lifecycle",
        "location",
        "logging",
        "partNumber",
        "policy",
        "requestPayment",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "storageClass",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
        "websiteConfig",
    }
)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who a request says that it is from, and what it signed."""

    access_id: str
    signature: bytes
    signed: bytes
    at: datetime | None  # when, as it says

    def holds(self, secret: str) -> bool:
        """Whether it was signed with that secret."""
        made = hmac.new(secret.encode(), self.signed, hashlib.sha1).digest()
        return hmac.compare_digest(base64.b64encode(made), self.signature)


def claim(method: str, path: bytes, query: bytes, headers: Headers) -> Claim | None:
    """What the request claims; `path` with the bucket in it. None when it claims nothing; InvalidInput when it cannot
    be read."""
    values = [value for name, value in headers if name == b"authorization"]
    if not values:
        return None
    if len(values) > 1:
        raise InvalidInput("authorization is given more than once", field="authorization")
    scheme, _, rest = values[0].decode("latin-1").partition(" ")
    access_id, colon, signature = rest.strip().partition(":")
    prefix = PREFIXES.get(scheme)
    if prefix is None or not colon or not access_id or len(access_id) > ID_CHARS_MAX:
        raise InvalidInput("authorization must be GOOG1 <access key>:<signature>", field="authorization")
    return Claim(
        access_id,
        signature.encode("latin-1", "replace"),
        signed_lines(method, path, query, headers, prefix),
        _moment(headers, prefix),
    )


def signed_lines(method: str, path: bytes, query: bytes, headers: Headers, prefix: str) -> bytes:
    """The lines that are signed."""
    plain = {"content-md5": "", "content-type": "", "date": ""}
    own: dict[str, list[str]] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        if name in plain:
            plain[name] = value
        elif name.startswith(prefix):
            own.setdefault(name, []).append(value)
    if f"{prefix}date" in own:
        plain["date"] = ""
    lines = [method, plain["content-md5"], plain["content-type"], plain["date"]]
    lines += [f"{name}:{','.join(own[name])}" for name in sorted(own)]
    return "\n".join([*lines, _resource(path, query)]).encode("latin-1")


def _resource(path: bytes, query: bytes) -> str:
    pairs: list[tuple[str, str | None]] = []
    for part in query.decode("latin-1").split("&"):
        name, equals, value = part.partition("=")
        if name in SIGNED:
            pairs.append((name, unquote(value, "latin-1") if equals else None))
    pairs.sort(key=lambda pair: pair[0])
    told = "&".join(name if value is None else f"{name}={value}" for name, value in pairs)
    return path.decode("latin-1") + (f"?{told}" if told else "")


def _moment(headers: Headers, prefix: str) -> datetime | None:
    found = {name: value for name, value in headers if name in (b"date", f"{prefix}date".encode())}
    value = found.get(f"{prefix}date".encode()) or found.get(b"date")
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value.decode("latin-1"))
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None
