"""Quotas: which there can be, and whether a workspace may become another tree.

What takes less than the tree now always may, whatever the quota says by now; what takes more may as far as the quota
goes, whichever way it comes: by a push, an import, a merge, a restore or an undo.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from atoll.domain.errors import InvalidInput, QuotaExceeded
from atoll.domain.tree import Entry
from atoll.domain.tree_size import BLOCK_BYTES, TreeSize, size_at_most, size_of, with_slack
from atoll.domain.workspace import Quota

BYTES_MIN = 2**20
INODES_MIN = 16
BYTES_PER_INODE_MAX = 2**23  # a file system has that many inodes, wanted or not
NAMES_PER_INODE = 4  # of files, on average: further names take no inode
_UNITS = (("GiB", 2**30), ("MiB", 2**20))


def new_quota(default: Quota, bytes_: int | None, inodes: int | None) -> Quota:
    """The default with what was asked for in its place; inodes that nobody asked for as they go with the bytes."""
    size = default.bytes if bytes_ is None else bytes_
    return Quota(size, fitting(Quota(size, default.inodes)).inodes if inodes is None else inodes)


def changed_quota(now: Quota, default: Quota, bytes_: int | None, inodes: int | None) -> Quota:
    """The quota now with what was asked for in its place. Where it had as many inodes as its bytes allowed it gets as
    many again, up to the default."""
    if bytes_ is None and inodes is None:
        return fitting(now)
    had_most = now.inodes >= _inodes_for(now.bytes)[1]
    return new_quota(Quota(now.bytes, max(now.inodes, default.inodes) if had_most else now.inodes), bytes_, inodes)


def fitting(quota: Quota) -> Quota:
    """With as many inodes as there can be for its bytes, at least and at most; an older version took any."""
    size = max(BYTES_MIN, quota.bytes)
    least, most = _inodes_for(size)
    return Quota(size, max(least, min(quota.inodes, most)))


def check_possible(quota: Quota, most: Quota) -> None:
    """InvalidInput naming quotaBytes or quotaInodes, and between which bounds it has to be."""
    if not BYTES_MIN <= quota.bytes <= most.bytes:
        rule = f"must be between {_amount(BYTES_MIN)} and {_amount(most.bytes)}"
        raise InvalidInput(f"quotaBytes {rule}", field="quotaBytes")
    fewest, many = _inodes_for(quota.bytes)
    many = max(fewest, min(many, most.inodes))
    if not fewest <= quota.inodes <= many:
        rule = f"must be between {fewest} and {many} with quotaBytes {_amount(quota.bytes)}"
        raise InvalidInput(f"quotaInodes {rule}", field="quotaInodes")


def _inodes_for(size: int) -> tuple[int, int]:
    return max(INODES_MIN, -(-size // BYTES_PER_INODE_MAX)), max(INODES_MIN, size // BLOCK_BYTES)


def _amount(size: int) -> str:
    named = next((f" ({size // unit} {name})" for name, unit in _UNITS if size >= unit and size % unit == 0), "")
    return f"{size}{named}"


async def check_quota(quota: Quota, before: Callable[[], Awaitable[Sequence[Entry]]], after: Sequence[Entry]) -> None:
    """QuotaExceeded, naming the quota, when `after` takes more than it allows and more than `before` does."""
    wanted = await asyncio.to_thread(size_of, after)
    if wanted.bytes <= quota.bytes and wanted.inodes <= quota.inodes:
        return
    now = await asyncio.to_thread(size_of, await before())
    if wanted.bytes > max(quota.bytes, now.bytes):
        raise _beyond("quotaBytes", quota.bytes, "bytes", wanted.bytes, now.bytes)
    if wanted.inodes > max(quota.inodes, now.inodes):
        raise _beyond("quotaInodes", quota.inodes, "files and folders", wanted.inodes, now.inodes)


def surely_fits(quota: Quota, entries: int, size: int) -> bool:
    """Whether a tree of so many entries and bytes fits, whatever it looks like."""
    most = size_at_most(entries, size)
    return most.bytes <= quota.bytes and most.inodes <= quota.inodes


def holding(quota: Quota, entries: Sequence[Entry]) -> Quota:
    """The quota, or what a working tree needs to hold these entries where that is more: a head can always be opened."""
    size = size_of(entries)
    if with_slack(size).bytes <= quota.bytes and size.inodes <= quota.inodes:
        return quota
    return at_least(quota, with_slack(size))


def at_least(quota: Quota, size: TreeSize) -> Quota:
    return Quota(max(quota.bytes, size.bytes), max(quota.inodes, size.inodes))


def _beyond(field: str, quota: int, what: str, wanted: int, now: int) -> QuotaExceeded:
    over = f"; it holds {now} now, and may only become smaller" if now > quota else ""
    return QuotaExceeded(f"{field}: the workspace holds at most {quota} {what}, and this takes {wanted}{over}")
