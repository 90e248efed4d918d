"""How the object-store door speaks of errors: the XML of object stores, with their codes, which clients compare."""

from __future__ import annotations

from xml.sax.saxutils import escape

from starlette.responses import Response

from atoll.domain.errors import (
    AtollError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from atoll.services.objects.batches import NotThat
from atoll.services.objects.names import BadName
from atoll.services.objects.placing import NoObject
from atoll.surfaces.bodies import Lingering
from atoll.surfaces.door import NoCredential
from atoll.surfaces.statuses import headers_of, status_and_code

XML = "application/xml"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


class BadDigest(InvalidInput):
    """The Content-MD5 that was given is not that of what came."""


class BadRange(InvalidInput):
    """The range lies outside of the object."""


class BadSignature(Unauthenticated):
    """The signature is not that of this access key for this request, or there is no such access key."""


class Skewed(Unauthenticated):
    """The request was signed too long ago, or in the future: look at the clock, and send it again."""


class NoBucket(NotFound):
    """There is no such bucket."""


# The nearest ancestor of an error decides; a status of 0 is the one of every surface.
CODES: dict[type[AtollError], tuple[int, str]] = {
    BadName: (400, "InvalidObjectName"),
    BadDigest: (400, "BadDigest"),
    BadRange: (416, "InvalidRange"),
    InvalidInput: (400, "InvalidArgument"),
    BadSignature: (403, "SignatureDoesNotMatch"),
    Skewed: (403, "RequestTimeTooSkewed"),
    NoCredential: (401, "AuthenticationRequired"),
    Unauthenticated: (403, "AccessDenied"),
    Forbidden: (403, "AccessDenied"),
    NoObject: (404, "NoSuchKey"),
    NoBucket: (404, "NoSuchBucket"),
    NotFound: (404, "NoSuchKey"),
    NotThat: (412, "PreconditionFailed"),
    Conflict: (409, "Conflict"),
    TooLarge: (413, "EntityTooLarge"),
    QuotaExceeded: (403, "QuotaExceeded"),
    RateLimited: (503, "SlowDown"),  # which clients wait for, where they give up at 429
    Unavailable: (503, "ServiceUnavailable"),
    DeadlineExceeded: (503, "ServiceUnavailable"),  # asked again, checksums go on where they were
    Unsupported: (501, "NotImplemented"),
}


class XmlDialect:
    """The envelope of every answer of this door."""

    surface = "objects"

    def error(self, error: AtollError) -> Response:
        status, code = next((CODES[one] for one in type(error).__mro__ if one in CODES), (0, "InternalError"))
        status = status or status_and_code(error)[0]
        return error_response(status, code, error.message, headers_of(error, status))

    def method_not_allowed(self, allowed: list[str]) -> Response:
        methods = ", ".join(allowed)
        return error_response(405, "MethodNotAllowed", f"this resource knows {methods} only", {"allow": methods})

    def upgrade_required(self) -> Response:
        return error_response(400, "InvalidArgument", "no resource here speaks WebSocket")


def error_response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    told = {name: value for name, value in (headers or {}).items() if name != "www-authenticate"}
    body = f"{DECLARATION}<Error><Code>{code}</Code><Message>{xml_text(message)}</Message></Error>"
    kind = Lingering if status == 413 else Response
    return kind(body.encode("utf-8", "replace"), status, told, XML)


def xml_text(value: str) -> str:
    """Text as it stands in XML; what XML cannot say is replaced."""
    sayable = "".join(char if char >= " " or char in "\t\n\r" else "\ufffd" for char in value)
    return escape(sayable, {"\r": "&#13;", '"': "&quot;"})
