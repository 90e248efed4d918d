"""Names: which paths of a workspace are objects, and which keys of objects may be paths.

What is no object is neither shown nor touched: `.home` is the memory of agents, and a client that makes the bucket
equal to a folder of its own would delete it.
"""

from __future__ import annotations

import re

from atoll.domain.errors import Forbidden, InvalidInput
from atoll.domain.tree import Entry, EntryKind, check_path
from atoll.services.workspaces.revising import HOME

# What XML 1.0 cannot say: control characters but tab and line ends, and two that are no characters.
_UNSAYABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class BadName(InvalidInput):
    """No object of a workspace can have that key."""


class Hidden(Forbidden):
    """What lies in .home is the programs' own: it can be neither read nor changed here."""


def path_of(key: str) -> bytes:
    """The path of an object's key. BadName says what is wrong with it; Hidden for what is never shown."""
    path = key.encode()
    if not path:
        raise BadName("an object's key is <workspaceId>/<path>", field="key")
    if path.endswith(b"/"):
        raise BadName("an object's key must not end in '/': folders are made for what is in them", field="key")
    if _UNSAYABLE.search(key):
        raise BadName("an object's key must not contain control characters", field="key")
    try:
        check_path(path)
    except InvalidInput as error:
        raise BadName(error.message, field="key") from None
    if is_hidden(path):
        raise Hidden
    return path


def is_hidden(path: bytes) -> bool:
    return path == HOME or path.startswith(HOME + b"/")


def key_of(entry: Entry) -> str | None:
    """The key of what stands in a tree; None for what is shown to nobody: folders, links, and names that are no text
    of XML."""
    if entry.kind not in (EntryKind.FILE, EntryKind.HARDLINK) or is_hidden(entry.path):
        return None
    try:
        key = entry.path.decode()
    except UnicodeDecodeError:
        return None
    return None if _UNSAYABLE.search(key) else key
