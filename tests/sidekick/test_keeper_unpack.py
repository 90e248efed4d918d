"""Unpacking archives: what is well-formed becomes the same tree, what is not is refused, and nothing leads outside."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.domain.errors import InvalidInput, TooLarge
from atoll.sidekick.keeper_client import KeeperClient
from atoll.testing.local_keeper import LocalKeeper
from tests.sidekick.trees import holes_of, truth

BYTES_MAX = 2**26
ENTRIES_MAX = 10_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    (tmp_path / "outside").write_bytes(b"untouched")
    return made


@pytest.fixture
def client(tree: Path) -> Iterator[KeeperClient]:
    with LocalKeeper(tree) as keeper:
        yield keeper.client
    assert (tree.parent / "outside").read_bytes() == b"untouched"
    assert sorted(os.listdir(tree.parent)) == ["outside", "tree"]


async def _pieces(data: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def _unpack(client: KeeperClient, data: bytes, *, strip: int = 0, piece: int = 50_000) -> int:
    pieces = _pieces(data, piece)
    return await client.unpack(pieces, bytes_max=BYTES_MAX, entries_max=ENTRIES_MAX, strip=strip)


def _member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in more.items():
        setattr(member, field, value)
    return member


def _tar(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, errors="surrogateescape") as tar:
        for item in members:
            member, data = item if isinstance(item, tuple) else (item, b"")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    return _member(name, kind, linkname=target)


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
async def test_what_tar_packs_is_unpacked_exactly(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("packed")
    source, target = base / "source", base / "target"
    source.mkdir()
    target.mkdir()
    (source / "d" / "empty").mkdir(parents=True)
    (source / "d" / "f").write_bytes(os.urandom(700_000))
    (source / "d" / "f").chmod(0o6751)
    (source / "d").chmod(0o3755)
    os.link(source / "d" / "f", source / "linked")
    os.symlink("/usr/bin/python3", source / "python")
    os.symlink("python", source / "python3")
    os.mkfifo(source / "fifo", 0o600)
    (source / ("long" * 40)).mkdir()
    (source / ("long" * 40) / ("name" * 50)).write_bytes(b"x")
    os.close(os.open(os.fsencode(source) + b"/raw \xff\xfe\n", os.O_CREAT, 0o644))
    with (source / "sparse").open("wb") as sparse:
        sparse.seek(2**20)
        sparse.write(b"data")
        sparse.truncate(2**22)
    os.setxattr(source / "d" / "f", "user.binary", b"\x00\xff=\n")
    for path in (source / "d" / "f", source / "d", source):
        os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    for version in ("1.0", "0.1", "0.0"):
        packed = _gnu_tar(source, "--format=posix", "--xattrs", "--sparse", f"--sparse-version={version}")
        with LocalKeeper(target) as keeper:
            assert await _unpack(keeper.client, packed, piece=1000) == 12
        assert truth(target) == truth(source), version
        shutil.rmtree(target)
        target.mkdir()
    with LocalKeeper(target) as keeper:
        await _unpack(keeper.client, _gnu_tar(source, "--format=gnu", "--sparse"))
    assert holes_of(os.fsencode(target / "sparse")) == holes_of(os.fsencode(source / "sparse"))
    assert (target / ("long" * 40) / ("name" * 50)).read_bytes() == b"x"


def _gnu_tar(source: Path, *options: str) -> bytes:
    return subprocess.run(["tar", *options, "-C", source, "-c", "."], check=True, capture_output=True).stdout


async def test_everything_belongs_to_the_trees_own_user(tree: Path, client: KeeperClient) -> None:
    await _unpack(client, _tar((_member("f", uid=4321, gid=4321, mode=0o4755), b"x"), _member("d", tarfile.DIRTYPE)))
    own = os.stat(tree)
    for name in ("f", "d"):
        info = os.stat(tree / name)
        assert (info.st_uid, info.st_gid) == (own.st_uid, own.st_gid)
    assert os.stat(tree / "f").st_mode & 0o7777 == 0o4755


async def test_first_parts_of_names_are_left_out(tree: Path, client: KeeperClient) -> None:
    packed = _tar(
        _member("top", tarfile.DIRTYPE),
        (_member("top/a/f"), b"x"),
        _link("top/g", "top/a/f", tarfile.LNKTYPE),
        _link("top/s", "top/a/f"),
    )
    assert await _unpack(client, packed, strip=1) == 3
    assert os.stat(tree / "g").st_ino == os.stat(tree / "a" / "f").st_ino
    assert os.readlink(tree / "s") == "top/a/f"


async def test_of_two_members_of_one_name_the_last_counts(tree: Path, client: KeeperClient) -> None:
    packed = _tar(
        (_member("f"), b"first"),
        (_member("f"), b"second"),
        _member("d", tarfile.DIRTYPE),
        (_member("d/in it"), b"x"),
        (_member("d"), b"a file after all"),
        (_member("e"), b"a file"),
        _member("e", tarfile.DIRTYPE, mode=0o1777),
        (_member("e/in it"), b"y"),
        _member("e", tarfile.DIRTYPE, mode=0o700),
    )
    await _unpack(client, packed)
    assert (tree / "f").read_bytes() == b"second"
    assert (tree / "d").read_bytes() == b"a file after all"
    assert (tree / "e" / "in it").read_bytes() == b"y"
    assert os.stat(tree / "e").st_mode & 0o7777 == 0o700
    assert sorted(os.listdir(tree)) == ["d", "e", "f"]


HOSTILE: dict[str, bytes] = {
    "out by dots": _tar((_member("../outside"), b"x")),
    "out by dots within": _tar((_member("a/../../outside"), b"x")),
    "absolute": _tar((_member("/tmp/outside"), b"x")),
    "through a link": _tar(_link("a", ".."), (_member("a/outside"), b"x")),
    "through an absolute link": _tar(_link("a", "/tmp"), (_member("a/outside"), b"x")),
    "through two links": _tar(_link("a", "."), _link("b", "a/.."), (_member("b/outside"), b"x")),
    "through a link in place of a folder": _tar(
        _member("a", tarfile.DIRTYPE), (_member("a/f"), b"1"), _link("a", ".."), (_member("a/outside"), b"x")
    ),
    "a folder through a link": _tar(_link("a", ".."), _member("a/b", tarfile.DIRTYPE)),
    "a link through a link": _tar(_link("a", ".."), _link("a/b", "x")),
    "hardlink out": _tar(_link("a", "../outside", tarfile.LNKTYPE)),
    "hardlink absolute": _tar(_link("a", "/etc/passwd", tarfile.LNKTYPE)),
    "hardlink through a link": _tar(_link("a", ".."), _link("b", "a/outside", tarfile.LNKTYPE)),
    "hardlink to what is not in it": _tar(_link("a", "nothing", tarfile.LNKTYPE)),
    "hardlink to a folder": _tar(_member("d", tarfile.DIRTYPE), _link("a", "d", tarfile.LNKTYPE)),
    "hardlink to itself": _tar(_link("a", "a", tarfile.LNKTYPE)),
    "device": _tar(_member("null", tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "block device": _tar(_member("disk", tarfile.BLKTYPE, devmajor=8)),
    "unknown kind": _tar(_member("what", b"Z")),
    "below a file": _tar((_member("f"), b"1"), (_member("f/g"), b"2")),
    "the root as a link": _tar(_link(".", "/tmp")),
    "no root": _tar((_member("./"), b"x")),
    "link without a target": _tar(_link("a", "")),
    "too long a part": _tar((_member("x" * 256), b"x")),
    "too deep": _tar((_member("d/" * 300 + "f"), b"x")),
    "too long": _tar((_member(("d" * 200 + "/") * 30 + "f"), b"x")),
    "NUL in a name": _tar((_member("f", pax_headers={"path": "a\0b"}), b"x")),
    "NUL in a target": _tar(_member("f", tarfile.SYMTYPE, linkname="x", pax_headers={"linkpath": "a\0b"})),
    "nonsense for a time": _tar((_member("f", pax_headers={"mtime": "nan"}), b"x")),
    "negative size": _tar((_member("f", pax_headers={"size": "-512"}), b"x")),
    "map beyond the size": _tar(
        (_member("f", pax_headers={"GNU.sparse.map": "0,99999", "GNU.sparse.size": "5"}), b"x")
    ),
    "map backwards": _tar((_member("f", pax_headers={"GNU.sparse.map": "4,1,0,1", "GNU.sparse.size": "5"}), b"xy")),
    "map that is none": _tar((_member("f", pax_headers={"GNU.sparse.map": "q", "GNU.sparse.size": "5"}), b"x")),
    "a map of billions": _tar(
        (_member("f", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), b"9999999999\n" + b"0\n" * 9000)
    ),
    "nothing": b"",
    "not an archive": os.urandom(20_000),
    "text": b"hello\n" * 1000,
    "appended": _tar((_member("f"), b"x")) + b"more",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_and_malformed_archives_are_refused(name: str, tree: Path, client: KeeperClient) -> None:
    with pytest.raises(InvalidInput) as caught:
        await _unpack(client, HOSTILE[name])
    assert caught.value.field in ("archive", "path")
    assert (await client.ping())["version"] == 1


async def test_headers_within_headers_end(client: KeeperClient) -> None:
    header = _tar(_member("f", pax_headers={"comment": "x"}))[:1024]
    with pytest.raises(InvalidInput):
        await _unpack(client, header * 20_000)


async def test_a_header_that_claims_to_be_huge_takes_no_memory(client: KeeperClient) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        header = _member("f", kind)
        header.size = 2**33
        with pytest.raises(InvalidInput, match="header of"):
            await _unpack(client, header.tobuf(tarfile.GNU_FORMAT) + bytes(2**16))


@pytest.mark.parametrize("cut", [1, 511, 512, 513, 1024, 1500, 2048])
async def test_archives_that_are_cut_off_are_refused(cut: int, client: KeeperClient) -> None:
    whole = _tar((_member("f"), b"x" * 600), (_member("g"), b"y"), format=tarfile.USTAR_FORMAT)
    assert len(whole) > cut
    with pytest.raises(InvalidInput):
        await _unpack(client, whole[:cut])


async def test_flipped_bits_crash_nothing(tree: Path, client: KeeperClient) -> None:
    """Whatever is in the archive: it is refused, or it is a tree of files within bounds."""
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    whole = bytearray(
        _tar(
            _member("d", tarfile.DIRTYPE),
            (_member("d/f" + "x" * 120, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "5.25"}), b"x" * 600),
            _link("l", "d"),
            _link("h", "d/f" + "x" * 120, tarfile.LNKTYPE),
            (_member("s", pax_headers={"GNU.sparse.map": "0,1,4,1", "GNU.sparse.size": "5"}), b"xy"),
        )
    )
    for _ in range(150):
        flipped = bytearray(whole)
        for _ in range(dice.choice((1, 3, 20))):
            flipped[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        try:
            await _unpack(client, bytes(flipped))
        except (InvalidInput, TooLarge):
            pass
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        for name in os.listdir(tree):
            path = tree / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


async def test_bombs_stop_at_their_bounds(tree: Path, client: KeeperClient) -> None:
    async def zeros(head: bytes, count: int) -> AsyncIterator[bytes]:
        yield head
        for _ in range(count):
            yield bytes(2**18)

    many = b"".join(_member(f"f{at}").tobuf(tarfile.USTAR_FORMAT) for at in range(300))
    large = _member("large")
    large.size = 2**33
    lying = _tar((_member("f", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50)}), b"x"))
    started = time.monotonic()
    with pytest.raises(TooLarge, match="entries"):
        await client.unpack(_pieces(many), bytes_max=BYTES_MAX, entries_max=299)
    with pytest.raises(TooLarge, match="bytes"):
        await client.unpack(zeros(large.tobuf(), 10**6), bytes_max=BYTES_MAX, entries_max=10)
    with pytest.raises(TooLarge, match="bytes"):
        await _unpack(client, lying)
    deep = _tar(*(_member(f"{at}/" + "d/" * 200 + "f") for at in range(3)))
    with pytest.raises(TooLarge, match="entries"):
        await client.unpack(_pieces(deep), bytes_max=BYTES_MAX, entries_max=500)
    assert time.monotonic() - started < 20


def _sparse_map(first: bytes, rest: bytes) -> tuple[bytes, bytes]:
    """A file in GNU's sparse format 1.0 whose map begins so, and goes on so for ever."""
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9", "GNU.sparse.name": "s"}
    member = _member("s", pax_headers=records)
    member.size = 2**33 - 1
    return member.tobuf(tarfile.PAX_FORMAT) + first.ljust(512, b"1"), rest


def _old_sparse_map() -> tuple[bytes, bytes]:
    """A file in GNU's old sparse format whose map never ends."""
    header = bytearray(_member("s", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[482], header[483:495], header[148:156] = 1, b"00000000001\0", b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header), (b"00000000001\0" * 42).ljust(512, b"\1")


def _globals() -> tuple[bytes, bytes]:
    """Records for all members, more with each member."""
    records = b"".join(b"%d k%03d=v\n" % (9, number) for number in range(50))
    header = _member("g", tarfile.XGLTYPE)
    header.size = len(records)
    block = header.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0") + _member("f").tobuf(tarfile.USTAR_FORMAT)
    return block, block.replace(b" k0", b" q0")


@pytest.mark.parametrize(
    "begin, rest, bound",
    [
        (*_sparse_map(b"1000000000\n", b"\n1" * 2**16), "headers of one member"),
        (*_old_sparse_map(), "headers of one member"),
        (*_globals(), "records hold for all"),
        (_tar(_member("f")), bytes(2**16), "zeros follow its end"),
    ],
    ids=["sparse map", "old sparse map", "records for all", "zeros behind the end"],
)
async def test_f11_what_no_entry_counts_is_bounded_too(
    client: KeeperClient, begin: bytes, rest: bytes, bound: str
) -> None:
    async def far_beyond() -> AsyncIterator[bytes]:
        yield begin
        for _ in range(2**8):
            yield rest * (2**18 // len(rest))

    with pytest.raises(InvalidInput, match=bound):
        await client.unpack(far_beyond(), bytes_max=2**40, entries_max=10**6)


async def test_an_archive_that_takes_too_long_is_given_up(
    client: KeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.sidekick.keeper_client.UNPACK_S", 0.3)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield _member("f").tobuf(tarfile.USTAR_FORMAT) * 100

    with pytest.raises(TooLarge, match="longer than"):
        await client.unpack(endless(), bytes_max=BYTES_MAX, entries_max=10**9)


async def test_a_caller_that_goes_away_leaves_nothing_running(tree: Path, client: KeeperClient) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield _tar((_member("f"), b"x" * 10_000))[:2000]
        raise RuntimeError("the body was cut")

    with pytest.raises(RuntimeError):
        await client.unpack(broken(), bytes_max=BYTES_MAX, entries_max=10)
    deadline = time.monotonic() + 10
    while (await client.ping())["operations"]:
        assert time.monotonic() < deadline
    assert os.listdir(tree) == []  # not even the half of a file
