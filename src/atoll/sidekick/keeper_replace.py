"""Replace and remove what stands at a name of a folder, whatever it is, while a tenant may be changing it."""

from __future__ import annotations

import errno
import os
from itertools import islice

from atoll.sidekick.keeper_paths import exchange
from atoll.sidekick.protocol import Refused

TRIES = 8
REMOVALS_MAX = 16_000_000  # a tenant may be adding while we remove
NAMES_AT_ONCE = 20_000

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_IN_THE_WAY = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST})


def temporary() -> bytes:
    """A name that nobody has."""
    return b".atoll-" + os.urandom(8).hex().encode()


def put(folder: int, made: bytes, name: bytes) -> bool:
    """Give what was made under a temporary name its own, in one step; what was there before is removed.

    True when that was, or may have been, a folder: descriptors of what was in it are of no use any more.
    """
    for _ in range(TRIES):
        try:
            os.rename(made, name, src_dir_fd=folder, dst_dir_fd=folder)
            return False
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
        try:
            exchange(folder, made, name)
        except FileNotFoundError:
            continue  # whatever was there is gone
        remove(folder, made)
        return True
    raise Refused("conflict", "somebody changes the tree meanwhile")


def remove(folder: int, name: bytes) -> None:
    """Remove it with all below it, however deep; nothing there is no error. It vanishes from its name in one step."""
    try:
        os.unlink(name, dir_fd=folder)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    try:
        os.rmdir(name, dir_fd=folder)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    trash = temporary()
    os.rename(name, trash, src_dir_fd=folder, dst_dir_fd=folder)
    for _ in range(TRIES):
        fd = os.open(trash, _FOLDER, dir_fd=folder)
        try:
            empty(fd)
        finally:
            os.close(fd)
        try:
            os.rmdir(trash, dir_fd=folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise Refused("conflict", "somebody fills a folder that is being removed")


def empty(folder: int) -> None:
    """Remove all that is in it. Folders that are not empty are hoisted into it: it never goes deep."""
    removals = 0
    while names := _some_names(folder):
        for name in names:
            removals += 1
            if not _remove_one(folder, name):
                removals += _hoist(folder, name)
        if removals > REMOVALS_MAX:
            raise Refused("conflict", "somebody fills a folder that is being removed")


def _hoist(base: int, name: bytes) -> int:
    """Empty a folder of `base` by moving the folders in it up; how many names it had."""
    try:
        fd = os.open(name, _FOLDER, dir_fd=base)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return 0
        raise
    moved = 0
    try:
        while moved < REMOVALS_MAX and (names := _some_names(fd)):
            for inner in names:
                moved += 1
                if not _remove_one(fd, inner):
                    try:
                        os.rename(inner, temporary(), src_dir_fd=fd, dst_dir_fd=base)
                    except FileNotFoundError:
                        pass
    finally:
        os.close(fd)
    _remove_one(base, name)
    return moved


def _remove_one(folder: int, name: bytes) -> bool:
    """False when it is a folder with something in it."""
    try:
        os.unlink(name, dir_fd=folder)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    try:
        os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False  # it was replaced: the next round sees it
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _some_names(folder: int) -> list[bytes]:
    with os.scandir(folder) as found:
        return [os.fsencode(item.name) for item in islice(found, NAMES_AT_ONCE)]
