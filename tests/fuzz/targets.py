"""Targets: everything of workspaces that parses bytes from outside, or from a disk, with a corpus of valid inputs each.

A target returns, or raises what its docstring's errors are: anything else is a finding.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import struct
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from atoll.domain.errors import AtollError, Corrupt, Internal, InvalidInput, TooLarge
from atoll.domain.tree import (
    Entry,
    EntryKind,
    Page,
    Root,
    check_entries,
    chunk_id,
    decode_entry,
    decode_page,
    decode_root,
    encode_page,
    encode_root,
)
from atoll.services.recovery import backup_format
from atoll.services.workspaces.archives.tar_members import END, member
from atoll.services.workspaces.storage.packs import PackBuilder, index_id, read_index
from atoll.services.workspaces.storage.sealing import Sealer, compress, decompress, inflate
from atoll.services.workspaces.storage.zstd_stream import decompressed
from atoll.services.workspaces.trees.stamps import Stamps, TreeState, encode_state
from atoll.sidekick import keeper_wire as packed
from atoll.sidekick import protocol as wire
from atoll.sidekick.keeper_applier import Applier
from atoll.sidekick.keeper_apply import apply
from atoll.sidekick.keeper_client import KeeperClient
from atoll.sidekick.keeper_link import Gone
from atoll.sidekick.keeper_packing import split_scan, unpack_applied, unpack_found, unpack_scan
from atoll.sidekick.keeper_paths import Folders
from atoll.sidekick.keeper_unpack import Unpacking
from atoll.sidekick.keeper_values import Seen
from atoll.sidekick.protocol import Refused
from atoll.surfaces.workspaces.entries import read_entries
from atoll.surfaces.workspaces.frames import HEAD, read_frames, read_ids
from tests.fuzz.identity_targets import IDENTITY
from tests.fuzz.object_targets import OBJECTS

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BYTES_MAX, ENTRIES_MAX = 1 << 20, 200
PIECE_BYTES = 1_000
KEY, LINEAGE, PACK = bytes(range(32)), "lin_1", "pack_1"


@dataclass(frozen=True, slots=True)
class Target:
    """`run` takes an input; `corpus` makes valid ones."""

    run: Callable[[bytes], object]
    corpus: Callable[[], list[bytes]]
    refusals: tuple[type[Exception], ...]

    def try_(self, data: bytes) -> bool:
        """Whether it was taken rather than refused. Raises what is a finding."""
        try:
            self.run(data)
        except self.refusals:
            return False
        return True


class _Link:
    """What a keeper's operation talks to: the input as DATA frames, then END."""

    def __init__(self, data: bytes) -> None:
        self._pieces = [bytearray(data[at : at + PIECE_BYTES]) for at in range(0, len(data), PIECE_BYTES)]

    def read_data(self) -> bytearray | None:
        return self._pieces.pop(0) if self._pieces else None

    def send(self, data: object) -> None:
        pass

    def result(self, value: object) -> None:
        pass


class _Tree:
    """A folder for each input, with something beside it that must stay as it is."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="atoll-fuzz-"))
        (self.base / "outside").write_bytes(b"untouched")

    def __enter__(self) -> int:
        (self.base / "tree").mkdir()
        self._root = os.open(self.base / "tree", os.O_RDONLY | os.O_DIRECTORY)
        self._umask = os.umask(0)  # as keepers set theirs: this process is none
        return self._root

    def __exit__(self, *_: object) -> None:
        os.umask(self._umask)
        os.close(self._root)
        shutil.rmtree(self.base / "tree")
        assert os.listdir(self.base) == ["outside"], "something came to lie outside of the tree"
        assert (self.base / "outside").read_bytes() == b"untouched"


_tree: list[_Tree] = []


def _folder() -> _Tree:
    if not _tree:
        _tree.append(_Tree())
    return _tree[0]


def close() -> None:
    """Remove what the targets made."""
    while _tree:
        shutil.rmtree(_tree.pop().base)


def tar(data: bytes) -> None:
    """An archive that is imported, as the keeper unpacks it."""
    with _folder() as root, Folders(root) as folders:
        applier = Applier(folders)
        try:
            Unpacking(root, _Link(data), applier, BYTES_MAX, ENTRIES_MAX, 0).run()  # type: ignore[arg-type]
            applier.finish()
        finally:
            applier.drop_unfinished()


def steps(data: bytes) -> None:
    """What a keeper is told to do."""
    with _folder() as root:
        apply(root, _Link(data), {"sync": False})  # type: ignore[arg-type]


def zstd(data: bytes) -> None:
    """The compressed form of an archive that is imported."""

    async def in_thread(work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    async def unpack() -> int:
        size = 0
        async for piece in decompressed(_pieces(data), in_thread, BYTES_MAX):
            size += len(piece)
        return size

    assert asyncio.run(unpack()) <= BYTES_MAX


def frames(data: bytes) -> None:
    """Chunks, and ids, that a client sends."""

    async def take() -> None:
        async for chunk in read_frames(_pieces(data)):
            inflate(chunk.data, chunk.size)

    try:
        read_ids(data)
    except InvalidInput:
        pass
    asyncio.run(take())


def entries(data: bytes) -> None:
    """A body of entries that a client commits: as it is, and compressed after what was done to it."""

    async def take(body: bytes) -> None:
        async for _ in read_entries(_pieces(body)):
            pass

    asyncio.run(take(data if data[:4] == ZSTD_MAGIC else zstandard.compress(data)))


def manifest(data: bytes) -> None:
    """The entries that a client commits; the pages and the root of a stored tree."""
    for decode in (decode_page, decode_root):
        try:
            decoded = decode(data)
            if isinstance(decoded, list):
                list(check_entries(decoded))
        except InvalidInput:
            pass
    list(check_entries(map(decode_entry, data.split(b"\n"))))


def pack(data: bytes) -> None:
    """A pack's index, whole and sealed again after what was done to it; a sealed chunk."""
    sealer = Sealer(KEY, LINEAGE)
    for chunk in read_index(data, PACK, sealer) if data[:1] == b"P" else ():
        assert chunk.pack == PACK
    index = sealer.seal(index_id(PACK), data)
    read_index(index + struct.pack(">I", len(index)), PACK, sealer)


def chunk(data: bytes) -> None:
    """A stored chunk: its seal, and what is within."""
    sealer = Sealer(KEY, LINEAGE)
    try:
        sealer.read(chunk_id(b"data"), data, 4)
    except Corrupt:
        pass
    decompress(data, 4_096)


def stamps(data: bytes) -> None:
    """The cache of what a working tree was: a damaged file is none."""
    base = _folder().base
    try:
        (base / "tree_1.stamps").write_bytes(data)
        Stamps(base, 100).load("tree_1")
    finally:
        (base / "tree_1.stamps").unlink()


def keeper(data: bytes) -> None:
    """What a keeper, which runs where the tenant's files are, says."""
    for take in (lambda: list(split_scan(data)), lambda: unpack_scan(data), lambda: unpack_found(data, 0, b"path")):
        try:
            take()
        except Internal:
            pass
    unpack_applied(bytearray(data), [Entry(b"f", EntryKind.FILE)])


def answers(data: bytes) -> None:
    """The frames of a keeper's answers, to each of its calls."""

    async def connect() -> tuple[asyncio.StreamReader, Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return reader, _Writer()

    async def ask() -> None:
        client = KeeperClient(connect)

        async def scan() -> None:
            async for _ in client.scan():
                pass

        async def read() -> None:
            async for _ in client.read([b"a", b"b"]):
                pass

        calls = (client.ping, client.usage, scan, read, lambda: client.apply(_nothing()), _unpack(client))
        for call in calls:
            try:
                await call()
            except AtollError:
                pass

    asyncio.run(ask())


def backups(data: bytes) -> None:
    """The manifest of a backup, and the list of its objects."""
    try:
        backup_format.read_inventory(data, "20261121T120000Z")
    except Corrupt:
        pass
    backup_format.read_manifest(data, "20261121T120000Z")


class _Writer:
    transport = type("Transport", (), {"abort": lambda self: None})()

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    async def drain(self) -> None:
        pass


def _unpack(client: KeeperClient) -> Callable[[], Any]:
    return lambda: client.unpack(_pieces(b"tar"), bytes_max=1, entries_max=1)


async def _nothing() -> AsyncIterator[Any]:
    for nothing in ():
        yield nothing


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), PIECE_BYTES):
        yield data[at : at + PIECE_BYTES]


# valid inputs

ENTRIES = [
    Entry(b"", EntryKind.DIRECTORY, 0o755, 10**18),
    Entry(b"a", EntryKind.FILE, 0o4644, 123_456_789, 1, 2, 5, chunk_id(b"12345"), xattrs=((b"user.a", b"\0\xff"),)),
    Entry(b"a2", EntryKind.HARDLINK, target=b"a"),
    Entry(b"d\xff", EntryKind.DIRECTORY, 0o700, -1),
    Entry(b"d\xff/" + b"long" * 40, EntryKind.SYMLINK, 0o777, target=b"/anywhere/\xfe"),
    Entry(b"p", EntryKind.FIFO, 0o600),
    Entry(b"s", EntryKind.FILE, 0o644, 0, 0, 0, 300_000, chunk_id(b"x"), holes=((0, 299_000),)),
]


def _tars() -> list[bytes]:
    ours = bytearray()
    for entry in ENTRIES:
        header, segments, padding = member(entry)
        ours += header + bytes(sum(length for _, length in segments)) + padding
    found = [bytes(ours + END)]
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
            for number in range(3):
                info = tarfile.TarInfo(f"folder/{number}{'name' * (12 * number)}")
                info.size = 700 * number
                archive.addfile(info, io.BytesIO(bytes(info.size)))
            link = tarfile.TarInfo("hard")
            link.type, link.linkname = tarfile.LNKTYPE, "folder/0"
            archive.addfile(link)
        found.append(out.getvalue())
    return [*found, *_sparse_tars()]


def _sparse_tars() -> list[bytes]:
    """GNU's sparse formats 0.0, 0.1 and 1.0, and its old one."""
    found: list[bytes] = []
    for records in (
        {
            "GNU.sparse.size": "9000",
            "GNU.sparse.numblocks": "1",
            "GNU.sparse.offset": "8000",
            "GNU.sparse.numbytes": "9",
        },
        {"GNU.sparse.size": "9000", "GNU.sparse.numblocks": "1", "GNU.sparse.map": "8000,9"},
        {"major": "1", "minor": "0", "realsize": "9000", "name": "s"},
    ):
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {f"GNU.sparse.{name}": value for name, value in records.items()}
        contents = b"1\n8000\n9\n".ljust(512, b"\0") + b"sparse!!!" if "major" in records else b"sparse!!!"
        info.size = len(contents)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(info, io.BytesIO(contents))
        found.append(out.getvalue())
    return found


def _frames(*sent: tuple[int, bytes]) -> bytes:
    return b"".join(wire.frame(kind, payload) for kind, payload in sent)


def _stat(mode: int, size: int = 0) -> bytes:
    return packed.STAT.pack(7, size, 10**18, 10**18, mode, 0, 0, 1)


def _scan() -> bytes:
    block = packed.BLOCK.pack(1, 2, 3) + b"d" + _stat(0o100644, 3) + _stat(0o040755) + b"a\0b"
    return packed.BLOCK.pack(0, 1, 0) + _stat(0o040755) + block


def _found() -> bytes:
    xattrs = packed.pack_xattrs([(b"user.a", b"b")])
    return (
        packed.FOUND.pack(packed.HERE, 0, 1, len(xattrs), 3)
        + _stat(0o100644, 9)
        + packed.HOLE.pack(0, 6)
        + xattrs
        + b"abc"
    )


def _steps() -> list[bytes]:
    def write(kind: bytes, path: bytes, size: int = 0, target: bytes = b"", xattrs: bytes = b"") -> bytes:
        head = packed.WRITE.pack(kind, 0o755, 0, 0, 10**18, size, len(path), len(target), len(xattrs))
        return b"\1" + head + path + target + xattrs

    data = b"\2" + packed.DATA.pack(3) + b"abc" + b"\3" + packed.SKIP.pack(4)
    attributes = packed.pack_xattrs([(b"user.a", b"b")])
    folder = write(b"d", b"") + write(b"d", b"d") + write(b"f", b"d/f", 7, xattrs=attributes) + data
    others = write(b"l", b"l", target=b"/etc") + write(b"h", b"h", target=b"d/f") + write(b"p", b"p")
    everything = folder + others + b"\4" + packed.DATA.pack(1) + b"h"
    return [everything, write(b"f", b"f", 3) + data[:8], write(b"f", b"l/f") * 2]


def _packs() -> list[bytes]:
    sealer = Sealer(KEY, LINEAGE)
    builder = PackBuilder(LINEAGE)
    builder.id = PACK
    for number in range(3):
        data = bytes([number]) * 100
        builder.add(chunk_id(data), sealer.seal(chunk_id(data), data), len(data))
    whole = builder.finish(sealer)
    text = json.dumps([[one.id.hex(), one.offset, one.stored_bytes, one.bytes] for one in builder.chunks]).encode()
    raw = struct.pack(">I", len(text)) + b"\0" + text
    return [whole, raw, struct.pack(">I", len(text)) + compress(text, zstandard.ZstdCompressor())]


def _stamps() -> list[bytes]:
    seen = Seen(b"a", "f", 0o644, 0, 0, 5, 10**18, 1, 7, 10**18)
    return [encode_state(TreeState("ab" * 32, {b"a": (seen, ENTRIES[1])}))]


def _answers() -> list[bytes]:
    error = json.dumps({"code": "conflict", "message": "no", "field": None}).encode()
    usage = json.dumps({"bytes": 1, "inodes": 2, "entries": 3, "told": [["a", "b"]]}).encode()
    found = _found() * 2
    return [
        _frames((wire.RESULT, usage)),
        _frames((wire.ERROR, error)),
        _frames((wire.DATA, _scan()), (wire.END, b"")),
        _frames((wire.DATA, found), (wire.END, b"")),
        _frames((wire.DATA, _stat(0o100644)), (wire.RESULT, usage)),
    ]


def _backups() -> list[bytes]:
    row = json.dumps(["lineages/lin_1/packs/pack_1", 5_000, "ab" * 32]).encode()
    fields = {
        "version": backup_format.VERSION,
        "moment": "20261121T120000Z",
        "vault": "local",
        "key": "AAAA",
        "sealed": "BBBB",
    }
    return [row + b"\n" + row, json.dumps(fields).encode()]


def _manifests() -> list[bytes]:
    root = Root((Page(chunk_id(b"p"), b"", 7),), 7, 5)
    return [encode_page(ENTRIES), encode_root(root), encode_page(ENTRIES[:1])]


def _compressed() -> list[bytes]:
    plain = _tars()[0]
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(plain)
    return [zstandard.compress(plain), unsized * 2, zstandard.compress(bytes(5_000_000)), zstandard.compress(b"")]


def _committed() -> list[bytes]:
    lines = encode_page(ENTRIES) + b'\n["s2"]\n'
    return [lines, encode_page(ENTRIES[1:3]), zstandard.compress(lines)]


def _sent() -> list[bytes]:
    frame = zstandard.compress(b"data" * 100)
    return [(HEAD.pack(chunk_id(b"data" * 100), 400, len(frame)) + frame) * 2, bytes(range(32)) * 3]


TARGETS = {
    "tar": Target(tar, _tars, (Refused,)),
    "zstd": Target(zstd, _compressed, (InvalidInput, TooLarge)),
    "frames": Target(frames, _sent, (InvalidInput,)),
    "entries": Target(entries, _committed, (InvalidInput, TooLarge)),
    "manifest": Target(manifest, _manifests, (InvalidInput,)),
    "pack": Target(pack, _packs, (Corrupt,)),
    "chunk": Target(chunk, lambda: [b"\0data", b"\1" + zstandard.compress(b"d" * 4_096), _packs()[0]], (Corrupt,)),
    "stamps": Target(stamps, _stamps, ()),
    "steps": Target(steps, _steps, (Refused, Gone)),
    "keeper": Target(keeper, lambda: [_scan(), _found(), _stat(0o100644)], (Internal,)),
    "answers": Target(answers, _answers, ()),
    "backups": Target(backups, _backups, (Corrupt,)),
    **{name: Target(*parts) for name, parts in (IDENTITY | OBJECTS).items()},
}


def names() -> Sequence[str]:
    return list(TARGETS)


def findings(name: str, inputs: Iterator[bytes]) -> Iterator[tuple[bytes, BaseException]]:
    """The inputs that are met with something else than their refusal."""
    for data in inputs:
        try:
            TARGETS[name].try_(data)
        except (Exception, AssertionError) as fault:
            yield data, fault
