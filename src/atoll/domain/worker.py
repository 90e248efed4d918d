"""Worker: something that its author offers on the marketplace: a command in a template, or an endpoint elsewhere.

Services publish, find, install, rate and run workers; the rules of versions and prices that every store obeys are here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from atoll.domain.errors import Conflict, InvalidInput

WORKER_ID = re.compile(r"^wkr_[0-9a-f]{24}$")
FIRST_VERSION = "1.0.0"
STARS_MAX = 5
_NUMBER = r"(?:0|[1-9]\d{0,8})"
_NAMED = r"[0-9A-Za-z-]{1,32}"
VERSION = re.compile(rf"^({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_NAMED}(?:\.{_NAMED}){{0,7}}))?$")


@dataclass(frozen=True, slots=True)
class Worker:
    """One version of a worker, the current one where nothing else is said, with what is counted of all its versions.

    `author` owns it and is paid for it; one that is not `public` is seen by its author alone.
    """

    id: str
    author: str
    name: str  # unique among the author's
    version: str  # SemVer 2; empty in what is to be published: the next one
    description: str
    created_at: datetime  # when the first version was published
    updated_at: datetime  # when this one was
    tags: tuple[str, ...] = ()
    endpoint_url: str | None = None  # told to whoever asks, never called by the server
    command: tuple[str, ...] = ()  # what runs in a sandbox of the caller's
    template: str = "host"
    pricing: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)  # as its author wrote it
    price_micro_usd: int = 0  # of one run
    public: bool = True
    installs: int = 0  # principals that did
    ratings: int = 0
    stars: int = 0  # of all ratings together

    @property
    def rating(self) -> float:
        """The mean of all ratings; 0.0 without any."""
        return round(self.stars / self.ratings, 2) if self.ratings else 0.0

    def seen_by(self, principal: str) -> bool:
        return self.public or self.author == principal


@dataclass(frozen=True, slots=True)
class WorkerUse:
    """What one principal had of a worker."""

    worker: str
    principal: str
    installed_at: datetime | None = None
    ran_at: datetime | None = None  # for the last time
    stars: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerQuery:
    """Which are sought: that text in the name or the description, in any case, any of the tags, and a run that costs
    no more than that; those that are public, and the `seer`'s own."""

    seer: str
    text: str = ""
    tags: tuple[str, ...] = ()
    author: str | None = None
    price_max_micro_usd: int | None = None


def sought_in(worker: Worker) -> str:
    """The text that a search looks into."""
    return f"{worker.name}\n{worker.description}".casefold()


def next_version(before: Worker | None, wanted: Worker) -> Worker:
    """`wanted` as it is stored after `before`: Conflict unless its version is above that one's; without a version of
    its own it gets the next patch."""
    if before is None:
        return replace(wanted, version=wanted.version or FIRST_VERSION)
    version = wanted.version or _next(before.version)
    if precedence(version) <= precedence(before.version):
        raise Conflict(f"version must be above {before.version}, which is published already")
    counted = replace(wanted, installs=before.installs, ratings=before.ratings, stars=before.stars)
    return replace(counted, id=before.id, version=version, created_at=before.created_at)


def precedence(version: str) -> tuple[Any, ...]:
    """What versions are compared by: SemVer 2.0.0, section 11. InvalidInput for a text that is none."""
    found = VERSION.match(version)
    if found is None:
        raise InvalidInput("version must be MAJOR.MINOR.PATCH, or such with a -PRERELEASE", field="version")
    major, minor, patch, prerelease = found.groups()
    named = [(0, int(one), "") if one.isdigit() else (1, 0, one) for one in (prerelease or "").split(".") if one]
    return int(major), int(minor), int(patch), prerelease is None, tuple(named)


def rated(before: Worker, use: WorkerUse | None, stars: int) -> Worker:
    """With that rating in place of the one that the principal gave before. Conflict unless it had something of it."""
    if use is None or (use.installed_at is None and use.ran_at is None):
        raise Conflict("only who has installed or run this worker can rate it")
    again = use.stars is not None
    return replace(before, ratings=before.ratings + (not again), stars=before.stars + stars - (use.stars or 0))


def _next(version: str) -> str:
    major, minor, patch, final, _ = precedence(version)
    return f"{major}.{minor}.{patch + 1 if final else patch}"
