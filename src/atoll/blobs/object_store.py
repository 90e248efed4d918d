"""Blobs in an object store of a cloud (S3 and its kin, Google, Azure), through obstore; `opening` makes the stores.

obstore sends a request again after a 5xx, a lost connection or a timeout, resumes a body that was cut off, and takes a
multipart upload back that fails.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from atoll.blobs.base import PIECE_BYTES, Blob, Blobs, check_key, check_prefix
from atoll.blobs.handoff import Handoff
from atoll.domain.errors import InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")

PART_BYTES = 16 * 2**20  # of a multipart upload, which has at most 10,000 parts
PARTS_AT_ONCE = 2
READ_BYTES = 8 * 2**20  # asked for at a time when a whole object is streamed
LISTED_AT_ONCE = 1_000
ENDING_S = 10.0  # longest wait for an upload to be taken back
# obstore's threads still let go of Python objects just after an answer; an interpreter that ends meanwhile aborts.
SETTLING_S = 0.05
BEYOND_ALL_KEYS = "~"
_REFUSED = re.compile(r"status code: (3\d\d|4(?!08|29)\d\d)|Received redirect")
_STATUS = re.compile(r"status code: (\d{3}[^:\n]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NOT_THAT_LONG = "status code: 416"


class ObjectStore(Blobs):
    def __init__(
        self, store: S3Store | GCSStore | AzureStore, name: str, *, concurrency: int, pauses_s: Sequence[float]
    ) -> None:
        """`name` is how messages call it, such as "s3://bucket"; `pauses_s` are those before each retry of ours."""
        self._store = store
        self._name = name
        self._pauses_s = pauses_s
        self._slots = asyncio.Semaphore(concurrency)
        self._uploads: set[asyncio.Task[None]] = set()
        self._started = False

    async def start(self) -> None:
        self._started = True
        try:
            await self.ping()
        except Unavailable as error:
            await self.close()
            if _is_refusal(error.__cause__):
                raise InvalidInput(error.message, field="blobs") from error
            raise

    async def close(self) -> None:
        self._started = False
        if self._uploads:
            _, unended = await asyncio.wait(self._uploads, timeout=ENDING_S)
            for upload in unended:
                upload.cancel()
        await asyncio.sleep(SETTLING_S)

    async def ping(self) -> None:
        # A listing tells a missing bucket from a missing object, and needs no right to write.
        listing = self._pages(None, offset=BEYOND_ALL_KEYS)
        try:
            await self._call(lambda: anext(listing, None))
        except NotFound as error:
            raise Unavailable(f"{self._name} does not exist") from error.__cause__

    async def put(self, key: str, data: bytes) -> None:
        check_key(key)
        await self._call(lambda: obstore.put_async(self._store, key, data, use_multipart=False))

    async def write(self, key: str, pieces: AsyncIterator[bytes]) -> int:
        check_key(key)
        head: list[bytes] = []
        size = 0
        async for piece in pieces:
            head.append(piece)
            size += len(piece)
            if size > PART_BYTES:
                return await self._write_in_parts(key, head, size, pieces)
        await self.put(key, b"".join(head))
        return size

    async def _write_in_parts(self, key: str, head: list[bytes], size: int, rest: AsyncIterator[bytes]) -> int:
        handoff = Handoff()
        upload = asyncio.create_task(self._upload(key, handoff))
        self._uploads.add(upload)

        def gone(upload: asyncio.Task[None]) -> None:
            self._uploads.discard(upload)
            handoff.close()
            if not upload.cancelled():
                upload.exception()  # whoever broke it off does not ask for it

        upload.add_done_callback(gone)
        try:
            while head and not upload.done():
                await handoff.give(head.pop(0))
            async for piece in rest:
                if upload.done():
                    break
                size += len(piece)
                await handoff.give(piece)
            await handoff.end()
            await asyncio.shield(upload)
        except asyncio.CancelledError:
            handoff.break_off()
            raise
        except Exception:
            handoff.break_off()
            await asyncio.wait([upload], timeout=ENDING_S)
            raise
        return size

    async def _upload(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        with self._errors():
            await obstore.put_async(
                self._store, key, pieces, use_multipart=True, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )

    async def get(self, key: str) -> bytes:
        check_key(key)

        async def whole() -> bytes:
            result = await obstore.get_async(self._store, key)
            return (await result.bytes_async()).to_bytes()

        return await self._call(whole)

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        if length == 0:
            if await self._size(key) < offset:
                raise NotFound("no such blob")
            return b""
        check_key(key)
        try:
            part = await self._call(lambda: obstore.get_range_async(self._store, key, start=offset, length=length))
        except Unavailable as error:
            if _NOT_THAT_LONG in str(error.__cause__):
                raise NotFound("no such blob") from None
            raise
        if len(part) != length:
            raise NotFound("no such blob")
        return part.to_bytes()

    async def read(self, key: str) -> AsyncIterator[bytes]:
        size = await self._size(key)
        for offset in range(0, size, READ_BYTES):
            part = await self.get_range(key, offset, min(READ_BYTES, size - offset))
            for at in range(0, len(part), PIECE_BYTES):
                yield part[at : at + PIECE_BYTES]

    async def delete(self, key: str) -> None:
        check_key(key)
        # A delete without an answer is the one request that obstore does not send again.
        for pause_s in (*self._pauses_s, None):
            try:
                await self._call(lambda: obstore.delete_async(self._store, key))
                return
            except NotFound:
                return
            except Unavailable as error:
                if pause_s is None or _STATUS.search(str(error.__cause__)):
                    raise
                await asyncio.sleep(pause_s)

    async def list(self, prefix: str) -> AsyncIterator[Blob]:
        # Object stores look for whole folders.
        folder = check_prefix(prefix).rpartition("/")[0]
        pages = self._pages(folder or None)
        while page := await self._call(lambda: anext(pages, None)):
            for found in page:
                if found["path"].startswith(prefix):
                    yield Blob(found["path"], found["size"], found["last_modified"])

    def _pages(self, folder: str | None, offset: str | None = None) -> AsyncIterator[Sequence[ObjectMeta]]:
        # Another form of its answer is a type of a package that we do without.
        return obstore.list(self._store, folder, offset=offset, chunk_size=LISTED_AT_ONCE)  # pyright: ignore[reportUnknownMemberType]

    async def _size(self, key: str) -> int:
        check_key(key)
        return (await self._call(lambda: obstore.head_async(self._store, key)))["size"]

    async def _call(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer, in one of our slots."""
        if not self._started:
            raise Unavailable("the blobs are not started")
        async with self._slots:
            with self._errors():
                return await request()

    @contextmanager
    def _errors(self) -> Generator[None]:
        """obstore's errors as the contract's."""
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound("no such blob") from error
        except BaseError as error:
            raise Unavailable(f"{self._name}: {_explain(error)}") from error


def _is_refusal(cause: BaseException | None) -> bool:
    """Whether asking again would change nothing: our credentials, our address or the bucket's name are not right."""
    wrong = PermissionDeniedError | UnauthenticatedError | FileNotFoundError
    return isinstance(cause, wrong) or bool(_REFUSED.search(str(cause)))


def _explain(error: BaseError) -> str:
    """One line of what obstore has to say: it dumps its insides and the store's XML."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if status is None:
        return text.splitlines()[0].rpartition(" - ")[2]
    return f"the store answers {status[1].strip()}" + (f" ({code[1]})" if code else "")
