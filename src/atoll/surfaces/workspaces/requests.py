"""What clients of `/v1/workspaces` send: bodies checked field by field, query parameters, unknown fields refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from atoll.domain.tree import PATH_BYTES_MAX, raw
from atoll.services.workspaces.views import Changes
from atoll.surfaces.models import BodyModel
from atoll.surfaces.operation import Parameter

MAX_INT = 2**53  # above it JSON readers disagree about a number
NAME_CHARS_MAX, TEXT_CHARS_MAX, TAGS_MAX, TAG_CHARS_MAX = 128, 4096, 64, 64
REVISION_CHARS_MAX = 256

Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_CHARS_MAX)]
Text = Annotated[str, StringConstraints(max_length=TEXT_CHARS_MAX)]
Tags = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=TAG_CHARS_MAX)]], Field(max_length=TAGS_MAX)
]
Ref = Annotated[str, StringConstraints(min_length=1, max_length=REVISION_CHARS_MAX)]
# Not StringConstraints, which refuse lone surrogates; those of names that are no UTF-8 are fine.
RawPath = Annotated[str, AfterValidator(lambda path: _raw_path(path)), Field(json_schema_extra={"maxLength": 4096})]
GroupId = Annotated[str, StringConstraints(max_length=128)]
Amount = Annotated[int, Field(ge=1, le=MAX_INT)]

_REVISION_TEXT = "HEAD, HEAD~2, a number, rev_..., a snapshot's id or name, or an RFC 3339 moment"
REVISION = Parameter("revision", _REVISION_TEXT + "; default: HEAD", max_chars=REVISION_CHARS_MAX)
FROM = Parameter("from", _REVISION_TEXT + "; default: HEAD~1", max_chars=REVISION_CHARS_MAX)
TO = Parameter("to", _REVISION_TEXT + "; default: HEAD", max_chars=REVISION_CHARS_MAX)
SINCE = Parameter("since", "only what changed after this revision", max_chars=REVISION_CHARS_MAX)
BASE = Parameter("base", "the revision that the changes were made to", required=True, max_chars=REVISION_CHARS_MAX)
NAME = Parameter("name", "only the one of this name", max_chars=NAME_CHARS_MAX)
TAG = Parameter("tag", "only those with this tag", max_chars=TAG_CHARS_MAX)
SHARED = Parameter("shared", "also those that others share with you", bool)
REVISIONS_LIMIT = Parameter("limit", "at most so many, the newest; default: 100", int, minimum=1, maximum=1_000)
BEFORE = Parameter("before", "only revisions before this number", int, minimum=1, maximum=MAX_INT)
BELOW = Parameter("path", "only what lies there or below", raw=True)
PATH = Parameter("path", "the file", required=True, raw=True)
DEPTH = Parameter("depth", "directories deep; default: 1, the folder's own entries", int, minimum=1, maximum=256)
ENTRIES_LIMIT = Parameter("limit", "at most so many entries; default: 1,000", int, minimum=1, maximum=10_000)
AFTER = Parameter("after", "go on behind this path: `next` of the answer before", raw=True)
TEXT = Parameter("text", "false: leave the unified diffs out", bool)
STRIP = Parameter("strip", "drop so many leading parts of every path", int, minimum=0, maximum=256)
MESSAGE = Parameter("message", "what it is about", max_chars=TEXT_CHARS_MAX)


def _raw_path(path: str) -> str:
    try:
        size = len(raw(path))
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8, other bytes as lone surrogates") from None
    if size > PATH_BYTES_MAX:
        raise ValueError(f"must be at most {PATH_BYTES_MAX} bytes")
    return path


class WorkspaceBody(BodyModel):
    """POST /v1/workspaces."""

    name: Name
    description: Text | None = None
    tags: Tags = Field([])
    quotaBytes: Amount | None = Field(None, description="what its files may hold")
    quotaInodes: Amount | None = Field(None, description="files and directories")
    automatic: bool = Field(True, description="take revisions after processes and daily")
    group: GroupId | None = Field(None, description="a group of yours whose it is: its id or name")


class ChangesBody(BodyModel):
    """PATCH /v1/workspaces/{ws}: what is absent stays as it is."""

    name: Name | None = None
    description: Text | None = Field(None, description="empty takes it away")
    tags: Tags | None = None
    quotaBytes: Amount | None = None
    quotaInodes: Amount | None = None
    automatic: bool | None = None

    def changes(self) -> Changes:
        tags = None if self.tags is None else tuple(self.tags)
        return Changes(self.name, self.description, tags, self.quotaBytes, self.quotaInodes, self.automatic)


class MessageBody(BodyModel):
    """POST .../revisions."""

    message: Text | None = None


class RestoreBody(BodyModel):
    """POST .../restore. A path that is no UTF-8 has lone surrogates in it."""

    revision: Ref
    path: RawPath | None = Field(None, description="only what lies there or below")


class ForkBody(BodyModel):
    """POST .../fork."""

    name: Name
    revision: Ref | None = Field(None, description="default: the state now")
    group: GroupId | None = Field(None, description="a group of yours whose it is: its id or name")


class MergeBody(BodyModel):
    """POST .../merge."""

    source: Ref = Field(description="the workspace whose changes are wanted: its id, or the name of one's own")
    revision: Ref | None = Field(None, description="default: its state now")
    base: Ref | None = Field(None, description="where both began; default: their latest common ancestor")


class SnapshotBody(BodyModel):
    """POST .../snapshots."""

    name: Name | None = None
    ownKey: bool = Field(False, description="encrypt it under a key of its own, which goes with it")
    keep: bool = Field(False, description="retention never removes it")


class ShareBody(BodyModel):
    """PUT .../collaborators/{principal}."""

    permission: Literal["read", "write", "admin"]
