"""The error tree that services raise and that each surface puts into its own envelope.

AtollError
├── InvalidInput        bad_request          a field is wrong; names the field and what would be right
├── Unauthenticated     unauthorized         no credential, or one that is not (or no longer) valid
├── Forbidden           forbidden            the credential is known and may not do this
├── NotFound            not_found            no such object, or somebody else's
├── Conflict            conflict             the object's state does not allow this now
├── TooLarge            too_large            a body, frame or answer beyond its limit
├── QuotaExceeded       quota_exceeded       a limit of the principal is reached
├── RateLimited         rate_limited         too many requests; retry after `retry_after_s`
├── Unsupported         not_supported        this runtime or this host cannot do it; says what would be needed
├── Unavailable         unavailable          a part is down; a retry may help
├── DeadlineExceeded    deadline_exceeded    a part did not answer in time; a retry may help
├── Corrupt             corrupt              what was stored is not what is there now: a checksum or key does not match
└── Internal            internal             a fault of ours
"""

from __future__ import annotations

from typing import ClassVar


class AtollError(Exception):
    """Something went wrong in Atoll."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(self.message)


class InvalidInput(AtollError):
    """The request is not valid."""

    code = "bad_request"

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


class Unauthenticated(AtollError):
    """A valid API key is required: Authorization: Bearer <key>."""

    code = "unauthorized"


class Forbidden(AtollError):
    """This credential may not do that."""

    code = "forbidden"


class NotFound(AtollError):
    """Not found."""

    code = "not_found"


class Conflict(AtollError):
    """The object's state does not allow this now."""

    code = "conflict"


class StaleVersion(Conflict):
    """The record changed since it was read."""

    retryable = True


class NameTaken(Conflict):
    """There is another of that name already."""


class TooLarge(AtollError):
    """The body is larger than the limit."""

    code = "too_large"


class QuotaExceeded(AtollError):
    """A limit is reached."""

    code = "quota_exceeded"

    def __init__(
        self,
        message: str | None = None,
        *,
        quota: str = "",
        subject: str = "",
        used: int = 0,
        limit: int = 0,
        retry_after_s: int | None = None,
    ) -> None:
        self.quota, self.subject = quota, subject  # which one, and whose; empty where it is none of a plan's
        self.used, self.limit = used, limit
        self.retry_after_s = retry_after_s  # when it may do, where that is known
        super().__init__(message)


class RateLimited(AtollError):
    """Too many requests."""

    code = "rate_limited"
    retryable = True

    def __init__(self, message: str | None = None, *, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Unsupported(AtollError):
    """This runtime cannot do that."""

    code = "not_supported"


class Unavailable(AtollError):
    """A part of Atoll is not available."""

    code = "unavailable"
    retryable = True


class DeadlineExceeded(AtollError):
    """A part of Atoll did not answer in time."""

    code = "deadline_exceeded"
    retryable = True


class Corrupt(AtollError):
    """What is stored is damaged."""

    code = "corrupt"


class Internal(AtollError):
    """An error inside Atoll."""
