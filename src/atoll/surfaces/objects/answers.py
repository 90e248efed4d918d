"""Answers of the object-store door that succeed: lists in XML, and the headers of an object."""

from __future__ import annotations

import base64
from email.utils import formatdate
from urllib.parse import quote

from starlette.responses import Response

from atoll.services.objects.listing import Listed, Wanted
from atoll.services.objects.objects import StoredObject
from atoll.surfaces.moments import moment_of_ns
from atoll.surfaces.objects.errors import DECLARATION, XML, xml_text

NAMESPACE = "http://doc.s3.amazonaws.com/2006-03-01"  # the name of the document type, which is never fetched
MTIME, MODE = "goog-reserved-file-mtime", "goog-reserved-posix-mode"
OWNER = "<Owner><ID>atoll</ID><DisplayName>atoll</DisplayName></Owner>"


def xml(body: str) -> Response:
    return Response((DECLARATION + body).encode(), 200, media_type=XML)


def buckets(bucket: str) -> Response:
    """The one bucket that there is."""
    made = "1970-01-01T00:00:00.000Z"
    one = f"<Bucket><Name>{bucket}</Name><CreationDate>{made}</CreationDate></Bucket>"
    return xml(f'<ListAllMyBucketsResult xmlns="{NAMESPACE}">{OWNER}<Buckets>{one}</Buckets></ListAllMyBucketsResult>')


def listing(bucket: str, wanted: Wanted, listed: Listed, *, encoded: bool, token: str | None) -> Response:
    """A page of keys; `token` is what the request continued from, in the second form of lists, None in the first."""

    def name(value: str) -> str:
        return xml_text(quote(value, safe="/", errors="surrogateescape") if encoded else value)

    parts = [f"<Name>{bucket}</Name><Prefix>{name(wanted.prefix)}</Prefix><MaxKeys>{wanted.limit}</MaxKeys>"]
    if wanted.delimiter:
        parts.append(f"<Delimiter>{name(wanted.delimiter)}</Delimiter>")
    if encoded:
        parts.append("<EncodingType>url</EncodingType>")
    parts.append(f"<IsTruncated>{str(listed.more).lower()}</IsTruncated>")
    if token is None:
        parts.append(f"<Marker>{name(wanted.after)}</Marker>")
        if listed.more:
            parts.append(f"<NextMarker>{name(listed.last)}</NextMarker>")
    else:
        count = len(listed.objects) + len(listed.prefixes)
        parts.append(f"<KeyCount>{count}</KeyCount>")
        if listed.more:
            parts.append(f"<NextContinuationToken>{token_of(listed.last)}</NextContinuationToken>")
    for key, one in listed.objects:
        parts.append(
            f"<Contents><Key>{name(key)}</Key><Generation>{one.generation}</Generation>"
            f"<MetaGeneration>1</MetaGeneration><LastModified>{_iso(one.entry.mtime_ns)}</LastModified>"
            f"<ETag>&quot;{one.md5.hex()}&quot;</ETag><Size>{one.entry.size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
    parts += [f"<CommonPrefixes><Prefix>{name(prefix)}</Prefix></CommonPrefixes>" for prefix in listed.prefixes]
    return xml(f'<ListBucketResult xmlns="{NAMESPACE}">{"".join(parts)}</ListBucketResult>')


def token_of(key: str) -> str:
    """A key as the token that continues behind it."""
    return base64.urlsafe_b64encode(key.encode("utf-8", "surrogateescape")).decode()


def headers_of(one: StoredObject) -> dict[str, str]:
    """What HEAD tells of an object."""
    return {
        "etag": f'"{one.md5.hex()}"',
        "last-modified": formatdate(max(0, one.entry.mtime_ns // 10**9), usegmt=True),
        "x-goog-generation": str(one.generation),
        "x-goog-metageneration": "1",
        "x-goog-hash": f"md5={base64.b64encode(one.md5).decode()}",
        "x-goog-stored-content-length": str(one.entry.size),
        "x-goog-stored-content-encoding": "identity",
        "x-goog-storage-class": "STANDARD",
        f"x-goog-meta-{MTIME}": str(one.entry.mtime_ns // 10**9),
        f"x-goog-meta-{MODE}": f"{one.entry.mode & 0o777:o}",
        "accept-ranges": "bytes",
    }


def _iso(moment_ns: int) -> str:
    return moment_of_ns(moment_ns).strftime("%Y-%m-%dT%H:%M:%S.000Z")
