"""The server itself: where it listens, where its records are, what it lets in and what it logs."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, SecretStr, field_validator

from atoll.settings.section import GIB, KIB, MIB, Section

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
SECRET_CHARS_MIN, SECRET_CHARS_MAX = 32, 256
# Without what is no letter: change-me, YOUR_ADMIN_KEY, ...
PLACEHOLDERS = ("changeme", "changethis", "replaceme", "youradmin", "yourkey", "yoursecret", "yourapi", "placeholder")


class Server(Section):
    host: str = "127.0.0.1"
    """Address to listen on. On one that is not loopback no key is minted: one must exist before the start."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    public_url: str = ""
    """Where clients reach this server, `https://atoll.example.com`, for addresses in answers. Empty: as each request
    came."""
    body_bytes: int = Field(default=10 * MIB, ge=1 * KIB, le=1 * GIB)
    """Largest JSON body of a request. Uploads are streamed and bounded by the sandbox's disk instead."""
    frame_bytes: int = Field(default=1 * MIB, ge=4 * KIB, le=64 * MIB)
    """Largest WebSocket message; a larger one closes the connection with 1009."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose X-Forwarded-For is believed. Environment: separated by commas."""
    connections: int = Field(default=32_768, ge=8, le=1_000_000)
    """Most connections of clients at once, and never more than half the files that the process may open. Beyond that,
    those go first that have asked for nothing yet, then those that wait for a next request."""
    connections_per_address: int = Field(default=1_000, ge=1, le=1_000_000)
    """Most connections of one address, or IPv6 /64, at once; more are closed. Loopback and trusted proxies have no
    such limit."""
    drain_s: float = Field(default=10.0, ge=0, le=600)
    """Seconds that open requests get to finish after SIGTERM."""

    @field_validator("public_url")
    @classmethod
    def _address(cls, value: str) -> str:
        text = value.rstrip("/")
        if text and not _ORIGIN.fullmatch(text):
            raise ValueError("must be http:// or https://, a name and perhaps a port")
        return text

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ip_network(part, strict=False)
        return value


class Database(Section):
    url: str | None = None
    """sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME. Empty: atoll.db in the data folder."""
    pool_connections: int = Field(default=8, ge=1, le=200)
    """Connections to PostgreSQL. SQLite has one writer and these readers, at most 4."""
    timeout_s: float = Field(default=5.0, ge=0.1, le=120)
    """Longest wait for a lock, a connection or an answer, retries included; then the API answers 503."""

    @field_validator("url")
    @classmethod
    def _normal(cls, value: str | None) -> str | None:
        return database_url(value) if value else None


def database_url(text: str) -> str:
    """The URL as SQLAlchemy knows it, with the driver of ours; ValueError when it is neither kind."""
    parts = urlsplit(text)
    scheme = parts.scheme.partition("+")[0]
    if scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return "sqlite://" + text.partition("://")[2]
    if scheme in ("postgres", "postgresql"):
        return urlunsplit(parts._replace(scheme="postgresql+asyncpg"))
    raise ValueError("a database URL begins with sqlite:/// or postgresql://")


class KeySettings(Section):
    use_retention_days: float = Field(default=30.0, gt=0, le=3_650)
    """Days that `api_key_usage` is kept."""
    cache_s: float = Field(default=2.0, ge=0, lt=5)
    """How long another process may still accept a key after it was revoked."""
    use_queue_items: int = Field(default=10_000, ge=1, le=1_000_000)
    """Uses of keys waiting to be written; more are dropped and counted."""
    bootstrap: Annotated[tuple[SecretStr, ...], Field(max_length=100)] = ()
    """Texts of standard keys that hold as long as they stand here, of 32 to 256 characters. Separated by commas."""
    in_query: bool = False
    """Take a credential from ?api_key= too. Addresses end up in the logs of proxies and in browsers' histories."""
    token_in_query: bool = False
    """Take a credential from ?token= of a WebSocket too: a browser cannot set headers on one."""

    @field_validator("bootstrap", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("bootstrap")
    @classmethod
    def _long(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, secret in enumerate(value, 1):
            check_secret(secret.get_secret_value(), f"key {number}")
        return value


class Api(Section):
    docs: bool = True
    """Serve /docs, /redoc and /openapi.json."""
    metrics: bool = True
    """Serve /metrics, to anybody; with sandboxes' ids and programs' names for loopback only, not through a proxy."""
    metrics_tenants: bool = True
    """Tell loopback those ids and names. Off, /metrics tells nobody whose sandbox runs what: for a machine on which
    tenants, or others whom that does not concern, have accounts of their own."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read answers, as `https://app.example`; `*` for all. Environment: separated by commas.
    Testbase's routes answer all without it. No answer allows cookies, so a page needs a key of its own."""

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if one != "*" and not _ORIGIN.fullmatch(one):
                raise ValueError("an origin is a scheme, a host and perhaps a port, as https://app.example:8443")
        return value


class Admin(Section):
    api_key: SecretStr | None = None
    """The only credential that opens /admin: 32 to 256 characters, as of `openssl rand -hex 32`. Empty: closed."""

    @field_validator("api_key")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_secret(value.get_secret_value(), "it")
        return value


def check_secret(text: str, what: str) -> None:
    """ValueError for a secret that somebody may guess, without repeating it."""
    if not SECRET_CHARS_MIN <= len(text) <= SECRET_CHARS_MAX:
        raise ValueError(f"{what} must have {SECRET_CHARS_MIN} to {SECRET_CHARS_MAX} characters")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{what} must be of printable ASCII characters without spaces")
    plain = re.sub(r"[^a-z]", "", text.lower())
    if any(word in plain for word in PLACEHOLDERS):
        raise ValueError(f"{what} looks like an example, not like a secret: draw one, as with `openssl rand -hex 32`")


class Logs(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""
    format: Literal["auto", "json", "text"] = "auto"
    """`auto` is text on a terminal, else JSON lines."""
