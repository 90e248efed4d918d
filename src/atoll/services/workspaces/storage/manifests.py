"""Manifests: trees in the chunk store. A tree's root and pages are chunks like any other; the newest stay decoded.

Storing a tree that is nearly one of a moment ago costs a comparison of entries, and the encoding of those pages in
which something changed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from operator import attrgetter

from atoll.domain.errors import Corrupt, InvalidInput
from atoll.domain.tree import (
    PAGE_ENTRIES_MAX,
    Entry,
    Page,
    Root,
    begins_a_page,
    chunk_id,
    decode_page,
    decode_root,
    encode_page,
    encode_root,
)
from atoll.services.workspaces.storage.chunk_writer import ChunkWriter
from atoll.services.workspaces.storage.chunks import ChunkStore

ENTRY_BYTES = 400  # that a decoded entry takes, about, besides its page's text
ENCODED_AT_ONCE = 8  # pages, in one job
_path = attrgetter("path")
_size = attrgetter("size")


class Manifests:
    """Stores and reads trees."""

    def __init__(self, chunks: ChunkStore) -> None:
        self._chunks = chunks
        self._cache = _PageCache(chunks.limits.page_cache_bytes)

    async def store(self, writer: ChunkWriter, entries: Iterable[Entry]) -> tuple[str, Root]:
        """Write the pages and the root of sorted entries; (the tree, its root). Durable once the writer is flushed.

        Pages that are as one in the cache are not encoded again.
        """
        lineage = writer.lineage
        pages: list[Page | None] = []
        reused: dict[int, list[Entry]] = {}  # number of the page -> its entries
        new: dict[int, list[Entry]] = {}
        count = size = 0
        for page, entries_of in self._cut(lineage, entries):
            count += len(entries_of)
            size += sum(map(_size, entries_of))
            (new if page is None else reused)[len(pages)] = entries_of
            pages.append(page)
            if len(new) >= ENCODED_AT_ONCE:
                await self._write(writer, pages, new)
                new = {}
        found = await self._chunks.known(lineage, [page.id for page in pages if page is not None])
        for number, entries_of in reused.items():
            page = pages[number]
            if page is not None and page.id not in found:
                new[number] = entries_of
        await self._write(writer, pages, new)
        root = Root(tuple(page for page in pages if page is not None), count, size)
        data = encode_root(root)
        tree = chunk_id(data)
        await writer.add(tree, data)
        self._cache.put_root(lineage, tree, root, len(data))
        return tree.hex(), root

    async def root(self, lineage: str, tree: str) -> Root:
        """The root of a tree. Corrupt; NotFound when the lineage was shredded."""
        await self._chunks.keys.key(lineage)  # what is cached of a shredded one is gone too
        chunk = bytes.fromhex(tree)
        root = self._cache.root(lineage, chunk)
        if root is None:
            data = await self._chunks.get(lineage, chunk)
            try:
                root = decode_root(data)
            except InvalidInput as error:
                raise Corrupt(f"tree {tree} of {lineage}: {error.message}") from None
            self._cache.put_root(lineage, chunk, root, len(data))
        return root

    async def entries(self, lineage: str, tree: str) -> AsyncGenerator[Entry]:
        """Every entry, sorted; a few pages in memory. Corrupt."""
        root = await self.root(lineage, tree)
        async with aclosing(self.pages(lineage, root.pages)) as pages:
            async for entries in pages:
                for entry in entries:
                    yield entry

    async def load(self, lineage: str, tree: str) -> list[Entry]:
        """Every entry, sorted. Corrupt."""
        root = await self.root(lineage, tree)
        return [entry async for page in self.pages(lineage, root.pages) for entry in page]

    async def find(self, lineage: str, tree: str, path: bytes) -> Entry | None:
        """The entry at that path; reads one page. Corrupt."""
        root = await self.root(lineage, tree)
        number = bisect_right(root.pages, path, key=attrgetter("first")) - 1
        if number < 0:
            return None
        async with aclosing(self.pages(lineage, root.pages[number : number + 1])) as pages:
            async for entries in pages:
                at = bisect_right(entries, path, key=_path) - 1
                if at >= 0 and entries[at].path == path:
                    return entries[at]
        return None

    async def changed_pages(
        self, lineage: str, tree_a: str, tree_b: str, lineage_b: str | None = None
    ) -> tuple[list[Entry], list[Entry]]:
        """The entries of those pages of a that b has not, and the reverse, each sorted: all that differs is in them.

        `lineage_b` is b's when it is another.
        """
        lineage_b = lineage_b or lineage
        a, b = await self.root(lineage, tree_a), await self.root(lineage_b, tree_b)
        shared = {page.id for page in a.pages} & {page.id for page in b.pages}
        only_a = [page for page in a.pages if page.id not in shared]
        only_b = [page for page in b.pages if page.id not in shared]
        return (
            [entry async for page in self.pages(lineage, only_a) for entry in page],
            [entry async for page in self.pages(lineage_b, only_b) for entry in page],
        )

    async def pages(self, lineage: str, pages: Sequence[Page]) -> AsyncGenerator[list[Entry]]:
        """The entries of each page in order. Corrupt. Nobody changes the lists: they are the cache's."""
        lacking = (page.id for page in pages if not self._cache.has(lineage, page.id))
        async with aclosing(self._chunks.fetch(lineage, list(dict.fromkeys(lacking)))) as fetched:
            for page in pages:
                entries = self._cache.page(lineage, page.id)
                while entries is None:
                    entries = await self._next(lineage, page, fetched)
                yield entries

    async def _next(self, lineage: str, page: Page, fetched: AsyncIterator[tuple[bytes, bytes]]) -> list[Entry] | None:
        """The page's entries from what was fetched; None when that was another page's, which is cached now."""
        chunk, data = await anext(fetched, (page.id, None))
        if data is None:  # it was in the cache when the fetching began, and is no more
            data = await self._chunks.get(lineage, page.id)
        try:
            entries = await self._chunks.in_thread(decode_page, data)
        except InvalidInput as error:
            raise Corrupt(f"page {chunk.hex()} of {lineage}: {error.message}") from None
        self._cache.put_page(lineage, chunk, entries, len(data))
        return entries if chunk == page.id else None

    def _cut(self, lineage: str, entries: Iterable[Entry]) -> Iterator[tuple[Page | None, list[Entry]]]:
        """The entries cut into pages, each with the cached page that it equals, if any."""
        rest = iter(entries)
        ahead = list(islice(rest, 1))  # taken from `rest`, and not yet in a page
        while ahead:
            first = ahead[0].path
            cached = self._cache.beginning_with(lineage, first)
            if cached is not None:
                page, before = cached
                ahead += islice(rest, max(0, page.entries + 1 - len(ahead)))
                after = ahead[page.entries : page.entries + 1]
                whole = not after or page.entries >= PAGE_ENTRIES_MAX or begins_a_page(after[0].path)
                if whole and ahead[: page.entries] == before:
                    yield page, before
                    ahead = after
                    continue
            end = 1
            while end < PAGE_ENTRIES_MAX:
                if end == len(ahead):
                    ahead += islice(rest, 1)
                if end == len(ahead) or begins_a_page(ahead[end].path):
                    break
                end += 1
            yield None, ahead[:end]
            ahead = ahead[end:] or list(islice(rest, 1))

    async def _write(self, writer: ChunkWriter, pages: list[Page | None], new: dict[int, list[Entry]]) -> None:
        if not new:
            return
        encoded = await self._chunks.in_thread(_encode, list(new.values()))
        for (number, entries), (chunk, data) in zip(new.items(), encoded, strict=True):
            await writer.add(chunk, data)
            pages[number] = Page(chunk, entries[0].path, len(entries))
            self._cache.put_page(writer.lineage, chunk, entries, len(data))


def _encode(pages: list[list[Entry]]) -> list[tuple[bytes, bytes]]:
    encoded = map(encode_page, pages)
    return [(chunk_id(data), data) for data in encoded]


class _PageCache:
    """Decoded pages and roots by lineage and id, the least recently used ones go; bounded by what they take, about."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._held: OrderedDict[tuple[str, bytes], tuple[list[Entry] | Root, int]] = OrderedDict()
        self._firsts: dict[tuple[str, bytes], bytes] = {}  # (lineage, a page's first path) -> its newest page

    def has(self, lineage: str, chunk: bytes) -> bool:
        return (lineage, chunk) in self._held

    def page(self, lineage: str, chunk: bytes) -> list[Entry] | None:
        held = self._get(lineage, chunk)
        return held if isinstance(held, list) else None

    def root(self, lineage: str, chunk: bytes) -> Root | None:
        held = self._get(lineage, chunk)
        return held if isinstance(held, Root) else None

    def beginning_with(self, lineage: str, first: bytes) -> tuple[Page, list[Entry]] | None:
        """The newest page whose first path this is."""
        chunk = self._firsts.get((lineage, first))
        entries = None if chunk is None else self.page(lineage, chunk)
        return None if chunk is None or entries is None else (Page(chunk, first, len(entries)), entries)

    def put_page(self, lineage: str, chunk: bytes, entries: list[Entry], text_bytes: int) -> None:
        self._put(lineage, chunk, entries, text_bytes + ENTRY_BYTES * len(entries))
        if entries and self.has(lineage, chunk):
            self._firsts[lineage, entries[0].path] = chunk

    def put_root(self, lineage: str, chunk: bytes, root: Root, text_bytes: int) -> None:
        self._put(lineage, chunk, root, 2 * text_bytes)

    def _get(self, lineage: str, chunk: bytes) -> list[Entry] | Root | None:
        held = self._held.get((lineage, chunk))
        if held is None:
            return None
        self._held.move_to_end((lineage, chunk))
        return held[0]

    def _put(self, lineage: str, chunk: bytes, value: list[Entry] | Root, size: int) -> None:
        if size > self._bytes_max or (lineage, chunk) in self._held:
            return
        self._held[lineage, chunk] = (value, size)
        self._bytes += size
        while self._bytes > self._bytes_max:
            (of, old), (gone, freed) = self._held.popitem(last=False)
            self._bytes -= freed
            if isinstance(gone, list) and self._firsts.get((of, gone[0].path)) == old:
                del self._firsts[of, gone[0].path]
