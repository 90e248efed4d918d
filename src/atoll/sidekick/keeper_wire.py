"""What a keeper and its client pack and unpack: stat records, steps and answers; both import this.

docs/sidekick-protocol.md, "Keepers", is the full page. All is big endian; paths are raw bytes below the root b"".
"""

from __future__ import annotations

import struct

STAT = struct.Struct("!QQqqIIII")  # inode, size, mtime_ns, ctime_ns, st_mode, uid, gid, links
BLOCK = struct.Struct("!HII")  # of `scan`: bytes of the folder's path, entries, bytes of their names joined by NUL
PATH = struct.Struct("!H")  # of `read`: bytes of the path that follows
FOUND = struct.Struct("!BHIIQ")  # of `read`: flags, bytes of target, holes, bytes of xattrs, bytes of data
HOLE = struct.Struct("!QQ")  # offset, length
XATTR = struct.Struct("!HI")  # bytes of the name, bytes of the value
WRITE = struct.Struct("!cHIIqQHHI")  # kind, mode, uid, gid, mtime_ns, size, bytes of path, of target, of xattrs
DATA = struct.Struct("!I")  # bytes that follow
SKIP = struct.Struct("!Q")

STEP_WRITE, STEP_DATA, STEP_SKIP, STEP_REMOVE = 1, 2, 3, 4  # the byte before each step of `apply`
GONE, HERE, APART = 0, 1, 2  # flags of FOUND: nothing is there; its data follows here; its data has frames of its own

PIECE_BYTES = 1 << 18  # frames are filled up to about here
PATH_BYTES_MAX = 4096
DEPTH_MAX = 256
XATTRS_BYTES_MAX = 1 << 17  # of one path: further ones are left out
HOLES_MAX = 4096  # of one file that are told whatever their length
LONG_HOLES_MAX = 32_768  # with those that fill whole chunks; shorter ones are read as the zeros that they are
FILE_BYTES_MAX = (1 << 44) - 4096  # holes included
CHUNK_BYTES = 1 << 20  # of a file, as trees cut them


def pack_xattrs(xattrs: tuple[tuple[bytes, bytes], ...] | list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([XATTR.pack(len(name), len(value)) + name + value for name, value in xattrs])


def unpack_xattrs(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """What `pack_xattrs` was given; struct.error when it is not that."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        name, value = XATTR.unpack_from(data, at)
        at += XATTR.size
        found.append((data[at : at + name], data[at + name : at + name + value]))
        at += name + value
    return tuple(found)


def is_path(path: bytes) -> bool:
    """Whether it names something below the root: relative, without empty parts, `.`, `..` and NUL, not too long."""
    fenced = b"/" + path + b"/"
    return (
        len(path) <= PATH_BYTES_MAX
        and b"\0" not in path
        and b"//" not in fenced
        and b"/./" not in fenced
        and b"/../" not in fenced
        and path.count(b"/") < DEPTH_MAX
    )
