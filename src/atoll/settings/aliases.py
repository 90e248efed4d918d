"""Environment names besides `ATOLL_SECTION__NAME`: short forms, names that are not the server's, names of the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Names below ATOLL_ that are not the server's: the client's, and the ones that tests use.
NOT_OURS = frozenset({"ATOLL_URL", "ATOLL_API_KEY", "ATOLL_CONFIG", "ATOLL_CRASH_AT"})
NOT_OURS_PREFIX = "ATOLL_TEST_"

# Short forms of often-used settings.
SHORT = {
    "ATOLL_DATA": "data",
    "ATOLL_HOST": "server.host",
    "ATOLL_PORT": "server.port",
    "ATOLL_DATABASE_URL": "database.url",
    "ATOLL_BLOBS_URL": "blobs.url",
}

# Names that the seed systems used. A later one in this table wins; any ATOLL_ name wins over them all.
ALIASES = {
    "PORT": "server.port",
    "DB_PATH": "database.url",
    "DATABASE_URL": "database.url",
    "ADMIN_API_KEY": "admin.api_key",
    "TESTBASE_API_KEYS": "keys.bootstrap",
    "MINIO_ENDPOINT": "blobs.endpoint",
    "MINIO_ROOT_USER": "blobs.access_key",
    "MINIO_ROOT_PASSWORD": "blobs.secret_key",
    "MINIO_ACCESS_KEY": "blobs.access_key",
    "MINIO_SECRET_KEY": "blobs.secret_key",
    "MINIO_BUCKET": "blobs.url",
    "S3_ENDPOINT": "blobs.endpoint",
    "S3_ACCESS_KEY": "blobs.access_key",
    "S3_SECRET_KEY": "blobs.secret_key",
    "S3_BUCKET": "blobs.url",
    "JWT_PUBLIC_KEY": "identity.jwt.public_key",
    "JWT_AUDIENCE": "identity.jwt.audience",
    "JWT_ISSUER": "identity.jwt.issuer",
    "OPENAI_API_KEY": "models.openai.api_key",
    "OPENAI_BASE_URL": "models.openai.base_url",
    "ANTHROPIC_API_KEY": "models.anthropic.api_key",
    "ANTHROPIC_BASE_URL": "models.anthropic.base_url",
}
# Seeds' names whose settings do not exist yet: known, and without effect.
ALIASES_WITHOUT_EFFECT = (*("FLY_API_TOKEN", "FLY_APP_NAME"),)


def from_aliases(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings, by dotted name, that the seeds' names in the environment give."""
    has_endpoint = bool(environ.get("S3_ENDPOINT") or environ.get("MINIO_ENDPOINT"))
    found: dict[str, Any] = {}
    for variable, name in ALIASES.items():
        value = environ.get(variable)
        if not value:
            continue
        if variable == "DB_PATH":
            value = f"sqlite:///{value}"
        elif name == "blobs.url":
            # A bucket alone may be meant for any other program.
            if not has_endpoint:
                continue
            value = f"s3://{value}"
        found[name] = value
    return found
