"""Brokered secrets: what a sandbox has in place of a value that only its egress gateway knows.

The secrets service gives it to processes, the gateway looks for it in requests. It opens nothing: only what comes out
of that one sandbox is searched for it, so that it may stand in logs and snapshots.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

PREFIX = "atoll-secret-"
TRUST_FILE = "/run/secrets/atoll-authorities.pem"  # the usual authorities, and the sandbox's own
# how programs are told of a file of authorities: curl, OpenSSL and Python, requests, Node, git, pip, AWS's, cargo
TRUST_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
)
_DIGITS = 32


@dataclass(frozen=True, slots=True, repr=False)
class Substitution:
    """What a request says in place of what its host is to get."""

    placeholder: bytes
    value: bytes

    def __repr__(self) -> str:
        return f"Substitution({self.placeholder!r})"


def placeholder(sandbox_id: str, secret_id: str) -> str:
    """The same for the life of the sandbox, whatever becomes of the server and the value; another in each sandbox."""
    return PREFIX + hashlib.sha256(f"atoll broker\0{sandbox_id}\0{secret_id}".encode()).hexdigest()[:_DIGITS]
