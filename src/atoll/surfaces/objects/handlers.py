"""The handlers of the object-store door: the bucket, lists of it, and objects in and out."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput, Unsupported
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.services.objects.batches import Placing
from atoll.services.objects.listing import PAGE_MAX, Listing, Wanted
from atoll.services.objects.objects import Objects
from atoll.services.objects.turns import paced
from atoll.surfaces.bodies import Stream, begun, upload
from atoll.surfaces.objects import answers
from atoll.surfaces.objects.answers import MODE, MTIME
from atoll.surfaces.objects.door import BUCKET, OBJECT, SERVICE, Asked, Served
from atoll.surfaces.objects.errors import BadDigest, BadRange

MD5_BYTES = 16
NS = 10**9
TIME_MAX_S = 2**33  # of a file, in seconds: what its tree may hold, and more than enough
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
# What a bucket is asked besides its list: it is as every new bucket is.
PARTS = {
    "location": f'<LocationConstraint xmlns="{answers.NAMESPACE}"/>',
    "versioning": f'<VersioningConfiguration xmlns="{answers.NAMESPACE}"/>',
    "storageClass": "<StorageClass>STANDARD</StorageClass>",
    "logging": "<Logging/>",
}
ELSEWHERE = frozenset(
    {
        "acl",
        "billing",
        "compose",
        "cors",
        "defaultObjectAcl",
        "delete",
        "encryptionConfig",
        "lifecycle",
        "partNumber",
        "policy",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versions",
        "website",
        "websiteConfig",
    }
)


class ObjectHandlers:
    """One method for each operation."""

    def __init__(self, objects: Objects, listing: Listing, *, bucket: str, object_bytes: int) -> None:
        self._objects = objects
        self._listing = listing
        self._bucket = bucket
        self._object_bytes = object_bytes

    def table(self) -> dict[tuple[str, str], Served]:
        """What is served."""
        return {
            (SERVICE, "GET"): Served("listBuckets", self.buckets),
            (BUCKET, "GET"): Served("listObjects", self.bucket),
            (BUCKET, "HEAD"): Served("headBucket", self.head_bucket),
            (OBJECT, "GET"): Served("getObject", self.get),
            (OBJECT, "HEAD"): Served("headObject", self.head),
            (OBJECT, "PUT"): Served("putObject", self.put, changes=True),
            (OBJECT, "DELETE"): Served("deleteObject", self.delete, changes=True),
        }

    async def buckets(self, _request: Request, principal: Principal, _asked: Asked) -> Response:
        principal.require(Scope.READ)
        return answers.buckets(self._bucket)

    async def head_bucket(self, _request: Request, principal: Principal, _asked: Asked) -> Response:
        principal.require(Scope.READ)
        return Response()

    async def bucket(self, _request: Request, principal: Principal, asked: Asked) -> Response:
        principal.require(Scope.READ)
        query = asked.query
        for part, body in PARTS.items():
            if part in query:
                return answers.xml(body)
        _refuse_parts(query)
        second = query.get("list-type") == "2"
        after = _continued(query) if second else query.get("marker", "")
        wanted = Wanted(query.get("prefix", ""), query.get("delimiter", ""), after, _page(query))
        encoding = query.get("encoding-type", "")
        if encoding not in ("", "url"):
            raise InvalidInput("the only encoding-type is url", field="encoding-type")
        listed = await self._listing.page(principal, wanted)
        return answers.listing(self._bucket, wanted, listed, encoded=bool(encoding), token=after if second else None)

    async def head(self, _request: Request, principal: Principal, asked: Asked) -> Response:
        ref, path = _split(asked)
        _refuse_parts(asked.query)
        found = await self._objects.get(principal, ref, path, _generation(asked.query))
        headers = answers.headers_of(found) | {"content-length": str(found.entry.size)}
        return Response(headers=headers, media_type="application/octet-stream")

    async def get(self, request: Request, principal: Principal, asked: Asked) -> Response:
        ref, path = _split(asked)
        _refuse_parts(asked.query)
        found, reading = await self._objects.read(principal, ref, path, _generation(asked.query))
        size = found.entry.size
        span = _range(request.headers.get("range"), size)
        first, length = span or (0, size)
        headers = answers.headers_of(found) | {"x-content-type-options": "nosniff"}
        if span is not None:
            headers["content-range"] = f"bytes {first}-{first + length - 1}/{size}"
        pieces = await begun(reading.pieces(first, length))
        return Stream(pieces, headers=headers, size=length, status=200 if span is None else 206)

    async def put(self, request: Request, principal: Principal, asked: Asked) -> Response:
        ref, path = _split(asked)
        _refuse_parts(asked.query)
        principal.require(Scope.WRITE)
        if any(name in request.headers for name in ("x-goog-copy-source", "x-amz-copy-source")):
            raise Unsupported("objects cannot be copied within the bucket: download and upload it")
        md5 = _md5(request.headers.get("content-md5"))
        placing = Placing(
            mtime_ns=_mtime(_meta(request, MTIME)), mode=_mode(_meta(request, MODE)), generation=_condition(request)
        )
        async with self._objects.upload(principal, ref) as spool:
            pieces: AsyncIterator[bytes] = upload(request, self._object_bytes)
            await spool.take(paced(pieces))
            if md5 is not None and md5 != spool.md5:
                raise BadDigest
            stored = await self._objects.put(principal, ref, path, spool, placing)
        return Response(headers=answers.headers_of(stored), media_type="application/xml")

    async def delete(self, request: Request, principal: Principal, asked: Asked) -> Response:
        ref, path = _split(asked)
        _refuse_parts(asked.query)
        principal.require(Scope.WRITE)
        generation = _generation(asked.query)
        await self._objects.delete(principal, ref, path, _condition(request) if generation is None else generation)
        return Response(status_code=204)


def _split(asked: Asked) -> tuple[str, str]:
    """The workspace, and the path in it, which may be none that a file can have."""
    ref, _, path = (asked.key or "").partition("/")
    return ref, path


def _refuse_parts(query: dict[str, str]) -> None:
    """What would otherwise be taken for something that was not meant."""
    for name in query:
        if name in ELSEWHERE:
            raise Unsupported(f"?{name} is not supported: objects here are plain files")


def _whole(text: str, field: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) > most:
        raise InvalidInput(f"{field} must be a whole number of at most {most}", field=field)
    return int(text)


def _page(query: dict[str, str]) -> int:
    text = query.get("max-keys")
    return PAGE_MAX if text is None else min(_whole(text, "max-keys", 2**63), PAGE_MAX)


def _continued(query: dict[str, str]) -> str:
    token = query.get("continuation-token")
    if token is None:
        return query.get("start-after", "")
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidInput("continuation-token must be what an answer said", field="continuation-token") from None


def _generation(query: dict[str, str]) -> int | None:
    text = query.get("generation")
    return None if text is None else _whole(text, "generation", 2**63)


def _condition(request: Request) -> int | None:
    text = request.headers.get("x-goog-if-generation-match")
    return None if text is None else _whole(text, "x-goog-if-generation-match", 2**63)


def _meta(request: Request, name: str) -> str | None:
    return request.headers.get(f"x-goog-meta-{name}") or request.headers.get(f"x-amz-meta-{name}")


def _mtime(text: str | None) -> int | None:
    """In nanoseconds; as of now for what is no time of a file: a client's metadata is not worth a refusal."""
    if text is None or not re.fullmatch(r"-?\d{1,12}(\.\d+)?", text):
        return None
    seconds = int(text.partition(".")[0])
    return seconds * NS if abs(seconds) <= TIME_MAX_S else None


def _mode(text: str | None) -> int | None:
    if text is None or not re.fullmatch(r"[0-7]{3,4}", text):
        return None
    return int(text, 8) & 0o777


def _md5(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        md5 = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        md5 = b""
    if len(md5) != MD5_BYTES:
        raise InvalidInput("Content-MD5 must be 16 bytes in base64", field="content-md5")
    return md5


def _range(text: str | None, size: int) -> tuple[int, int] | None:
    """(first, length); None for all of it, also where several ranges, or none that makes sense, are asked for."""
    found = None if text is None else _RANGE.fullmatch(text.strip())
    if found is None or not size:
        return None
    begin, end = found.groups()
    if not begin:
        if not end:
            return None
        length = min(int(end), size)
        if not length:
            raise BadRange
        return size - length, length
    first, last = int(begin), min(int(end), size - 1) if end else size - 1
    if first >= size:
        raise BadRange
    return None if end and int(end) < first else (first, last - first + 1)
