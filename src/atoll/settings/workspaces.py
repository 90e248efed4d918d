"""Workspaces: their bounds and when revisions are taken; where their bytes live."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from atoll.domain.workspace import Quota
from atoll.settings.section import DAY_S, GIB, MIB, Section

# A path of the operator's: of their home folder, or of where the server was started.
_Path = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class WorkspaceSettings(Section):
    quota_bytes: int = Field(default=Quota().bytes, ge=1 * MIB, le=65_536 * GIB)
    """What a workspace may hold when its request does not say."""
    quota_inodes: int = Field(default=Quota().inodes, ge=256, le=1_000_000_000)
    """Files and directories in it, when its request does not say."""
    max_quota_bytes: int = Field(default=100 * GIB, ge=1 * MIB, le=65_536 * GIB)
    """The most bytes that a request may ask for."""
    max_quota_inodes: int = Field(default=10_000_000, ge=256, le=1_000_000_000)
    """The most files and directories that a request may ask for."""
    max_per_key: int = Field(default=1_000, ge=0, le=1_000_000)
    """Workspaces of one standard key. Owner and internal keys have no such limit."""
    max_stored_bytes: int = Field(default=1_024 * GIB, ge=0, le=65_536 * GIB)
    """The most bytes that one standard key may have stored, in all workspaces and snapshots of its own. 0: no limit."""
    min_free_bytes: int = Field(default=1 * GIB, ge=0, le=65_536 * GIB)
    """Free bytes of each disk below which nothing new is stored on it, copies included. 0: no reserve."""
    trees: _Path | None = None
    """Folder of the working trees. Empty: `trees` in the data folder."""
    keeper_idle_s: float = Field(default=60.0, ge=1, le=DAY_S)
    """Seconds without work after which the process that reads and writes a working tree ends."""
    chunk_cache_bytes: int = Field(default=64 * MIB, ge=0, le=64 * GIB)
    """Memory for the pages of entries that were read last."""
    after_process: bool = True
    """Take a revision after a process that changed files."""
    on_stop: bool = True
    """Take a revision when a sandbox that has the workspace mounted ends."""
    on_suspend: bool = True
    """Take a revision when a sandbox that has the workspace mounted is suspended."""
    daily: bool = True
    """Take a revision once a day of a workspace that changed."""
    revisions_kept: int = Field(default=200, ge=1, le=1_000_000)
    """Newest automatic revisions of a workspace that are kept, and one of each day before."""
    snapshots_kept: int = Field(default=5, ge=1, le=1_000_000)
    """Newest snapshots of a workspace that are kept, besides those to keep and those in use."""
    snapshot_files: _Path | None = None
    """Folder that gets a copy of each snapshot as {user}/{id}.tar.zst. Empty: none."""
    folder: _Path | None = None
    """Folder that gets the files of each workspace's newest revision as {user}/{name}. Empty: none."""
    collect_every_s: float = Field(default=3_600.0, ge=1, le=7 * DAY_S)
    """Seconds between removals of what no revision and no snapshot refers to."""
    collect_grace_s: float = Field(default=DAY_S, ge=0, le=365 * DAY_S)
    """Seconds that such bytes stay after they were stored."""
    import_bytes: int = Field(default=64 * GIB, ge=1 * MIB, le=65_536 * GIB)
    """The most that an imported archive may unpack to; the workspace's quota holds too."""
    import_entries: int = Field(default=2_000_000, ge=1, le=1_000_000_000)
    """The most entries of an imported archive."""
    import_s: float = Field(default=3_600.0, ge=1, le=7 * DAY_S)
    """Longest time that an import may take."""

    @model_validator(mode="after")
    def _defaults_within_maxima(self) -> Self:
        for name in ("quota_bytes", "quota_inodes"):
            default, maximum = getattr(self, name), getattr(self, f"max_{name}")
            if default > maximum:
                raise ValueError(f"{name} ({default}) is above max_{name} ({maximum})")
        return self


def blobs_url(text: str | None) -> str | None:
    """The URL, which a folder's absolute path becomes too; ValueError when no store is opened by it."""
    if not text:
        return None
    if text.startswith(("/", "~/")):
        return Path(text).expanduser().absolute().as_uri()
    parts = urlsplit(text)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("a blobs URL has no user, query or fragment; keys are blobs.access_key and blobs.secret_key")
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        return text
    if parts.scheme in ("s3", "gs", "az") and parts.netloc:
        return text.rstrip("/")
    raise ValueError(
        "a blobs URL is /FOLDER, file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
    )


def _place(url: str) -> str:
    """The same text for every way to write one place."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return f"file {Path(unquote(parts.path)).resolve()}"
    return f"{parts.scheme} {parts.netloc} {'/'.join(part for part in parts.path.split('/') if part)}"


def endpoint_url(text: str | None) -> str | None:
    """The endpoint with its scheme. Without one a host of this machine or its own network (no dot in it) is http."""
    if not text:
        return None
    if "://" not in text:
        host = urlsplit(f"//{text}").hostname or ""
        text = f"{'http' if '.' not in host or _is_loopback(host) else 'https'}://{text}"
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ValueError("an endpoint is HOST, HOST:PORT, https://HOST:PORT or http://HOST:PORT")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


_BlobsUrl = Annotated[str | None, AfterValidator(blobs_url)]
_Endpoint = Annotated[str | None, AfterValidator(endpoint_url)]


class BlobSettings(Section):
    url: _BlobsUrl = None
    """/FOLDER or file:///FOLDER, or s3://, gs:// or az:// and BUCKET/PREFIX. Empty: `blobs` in the data folder."""
    endpoint: _Endpoint = None
    """Address of an S3-compatible store (or of an emulator). Empty: the provider's own."""
    region: str | None = None
    """Region of the bucket. Empty: AWS_REGION, else us-east-1."""
    path_style: bool = True
    """Ask S3 for /BUCKET/KEY; false: the bucket is part of the host's name."""
    access_key: str | None = None
    """Access key id (S3) or account (Azure). Empty: the environment's or the machine's own credentials."""
    secret_key: SecretStr | None = None
    """Secret key (S3), account key (Azure) or the service account's JSON (Google)."""
    timeout_s: float = Field(default=30.0, ge=0.1, le=3_600)
    """Longest wait for a connection or for the next bytes of an answer."""
    retries: int = Field(default=3, ge=0, le=20)
    """Times that a failed request is sent again."""
    backoff_s: float = Field(default=1.0, ge=0.01, le=60)
    """Pause before the first of them, about; each further one is twice as long."""
    backoff_max_s: float = Field(default=30.0, ge=0.01, le=600)
    """Longest such pause."""
    concurrency: int = Field(default=32, ge=1, le=1_000)
    """Requests to the store at a time."""
    copy_url: _BlobsUrl = None
    """A second store, in another region: every pack is copied there, by `atoll backup` the records too. Empty: none."""
    copy_endpoint: _Endpoint = None
    """Address of the second store. Empty: the provider's own."""
    copy_region: str | None = None
    """Region of the second store. Empty: as the first's."""
    copy_access_key: str | None = None
    """Access key id or account of the second store. Empty: as the first's."""
    copy_secret_key: SecretStr | None = None
    """Secret of the second store. Empty: as the first's."""
    copy_every_s: float = Field(default=30.0, ge=0.1, le=DAY_S)
    """Seconds between two looks for what the second store lacks."""
    copy_concurrency: int = Field(default=4, ge=1, le=100)
    """Objects that are copied to the second store at a time."""
    copy_backup_every_s: float = Field(default=0.0, ge=0, le=365 * DAY_S)
    """Seconds between two backups of the records into the second store by the server itself. 0: none."""
    copy_backups_kept: int = Field(default=7, ge=1, le=10_000)
    """Backups that such a backup leaves in the second store."""

    @model_validator(mode="after")
    def _keys_in_pairs(self) -> Self:
        for key, secret in (("access_key", "secret_key"), ("copy_access_key", "copy_secret_key")):
            if getattr(self, key) and not getattr(self, secret):
                raise ValueError(f"{key} needs {secret}")
        return self

    @model_validator(mode="after")
    def _two_stores(self) -> Self:
        if self.copy_url is not None and self.url is not None and self.copies_into(self.url):
            raise ValueError("copy_url is the store itself: a copy lies in another")
        return self

    def copies_into(self, url: str) -> bool:
        """Whether the second store is the place of that URL, at the first store's endpoint, however it is written."""
        if self.copy_url is None or _place(self.copy_url) != _place(url):
            return False
        return url.startswith("file:") or self.copy_endpoint == self.endpoint
